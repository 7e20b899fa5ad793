# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Bytes as sent and in dense exchange. The global model, by hand:

w  12 float32  48 bytes
b   4 float32  16 bytes
n   1 int64     8 bytes, which an update leaves out: 64 up, 72 down

The sparse update has entries 1 and 7 of w as float16, 4 bytes, and 2 bytes that say where they belong: the gaps 1 and 5
in Rice's code with the parameter 1 are 0 and 2 zeros with a one each (`1001`), and the low bits `11`, a byte each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from custom.compression import wire
from custom.keys import POSITIONS
from custom.widgets.progress_log import ProgressLog
from custom.widgets.traffic import Traffic, dense_bytes, payload_bytes, totals
from tests.support import Engine

MODEL = {"w": np.zeros((3, 4), np.float32), "b": np.zeros(4, np.float32), "n": np.array(7)}
UP, DOWN, SPARSE = 64, 72, 4 + 2
SITES = ["site-1", "site-2", "site-3", "site-4"]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = Engine(tmp_path, {"progress": ProgressLog()}, SITES)
    Path(engine.workspace.get_app_config_dir("job")).mkdir(parents=True)
    with engine.new_context() as fl_ctx:
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(MODEL, {}), private=True, sticky=True)
        engine.fire_event(EventType.START_RUN, fl_ctx)
        engine.fire_event(AppEventType.ROUND_STARTED, fl_ctx)
    return engine


def context(engine: Engine, site: str, **props: Any) -> FLContext:
    """Of one request of a site, as FLARE's server makes it."""
    fl_ctx, peer = engine.new_context(), FLContext()
    peer.set_prop("__identity_name__", site, private=False)
    fl_ctx.set_peer_context(peer)
    for key, value in props.items():
        fl_ctx.set_prop(key, value, private=True, sticky=False)
    return fl_ctx


def message(data: dict[str, np.ndarray], kind: str = DataKind.WEIGHT_DIFF, **meta: Any) -> Shareable:
    return DXO(kind, data=data, meta=meta).to_shareable()


def update(weight: int = 10, **data: np.ndarray) -> Shareable:
    return message(data, **{MetaKey.NUM_STEPS_CURRENT_ROUND: weight})


def dense_update() -> Shareable:
    return update(w=MODEL["w"], b=MODEL["b"])


def sparse_update() -> Shareable:
    payload = wire.encode({"w": MODEL["w"]}, {"w": np.array([1, 7])}, "float16")
    meta = {POSITIONS: payload.positions, MetaKey.NUM_STEPS_CURRENT_ROUND: 10}
    return message(payload.values, **meta)


def send(engine: Engine, site: str, task: Shareable) -> None:
    """A task that leaves as `task` where the server's filters met the whole model."""
    before = {FLContextKey.TASK_DATA: message(MODEL, DataKind.WEIGHTS), FLContextKey.TASK_NAME: "train"}
    fl_ctx = context(engine, site, **before)
    engine.fire_event(EventType.BEFORE_TASK_DATA_FILTER, fl_ctx)
    fl_ctx.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
    engine.fire_event(EventType.AFTER_TASK_DATA_FILTER, fl_ctx)


def receive(engine: Engine, site: str, result: Shareable, refused: bool = False) -> None:
    fl_ctx = context(engine, site, **{FLContextKey.TASK_RESULT: result})
    engine.fire_event(EventType.BEFORE_TASK_RESULT_FILTER, fl_ctx)
    result = make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR) if refused else result
    for key in (FLContextKey.TASK_RESULT, AppConstants.TRAINING_RESULT):
        fl_ctx.set_prop(key, result, private=True, sticky=False)
    engine.fire_event(EventType.AFTER_TASK_RESULT_FILTER, fl_ctx)
    if result.get_return_code() == ReturnCode.OK:
        engine.fire_event(AppEventType.AFTER_CONTRIBUTION_ACCEPT, fl_ctx)


def round_done(engine: Engine) -> dict[str, Any]:
    with engine.new_context() as fl_ctx:
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, 0, private=True, sticky=False)
        fl_ctx.set_prop(AppConstants.NUM_ROUNDS, 1, private=True, sticky=False)
        engine.fire_event(AppEventType.ROUND_DONE, fl_ctx)
    return json.loads((engine.run_dir / "progress.jsonl").read_text().splitlines()[-1])


def counts(up: int, down: int, dense_up: int, dense_down: int) -> dict[str, int]:
    names = ("upload_bytes", "download_bytes", "dense_upload_bytes", "dense_download_bytes")
    return dict(zip(names, (up, down, dense_up, dense_down), strict=True))


def test_a_round_by_site(engine: Engine) -> None:
    """One site is sparse both ways, one has no samples, one is refused and one never answers."""
    send(engine, "site-1", message({"w": np.zeros(3, np.float32)}))
    receive(engine, "site-1", sparse_update())
    for site in SITES[1:]:
        send(engine, site, message(MODEL, DataKind.WEIGHTS))
    receive(engine, "site-2", update(weight=0))
    receive(engine, "site-3", dense_update(), refused=True)

    done = round_done(engine)

    by_site = {site: {name: facts[name] for name in counts(0, 0, 0, 0)} for site, facts in done["sites"].items()}
    assert by_site == {"site-1": counts(SPARSE, 12, UP, DOWN), "site-2": counts(0, DOWN, 0, DOWN)}
    assert done["uncounted"] == {"site-3": counts(UP, DOWN, UP, DOWN), "site-4": counts(0, DOWN, 0, DOWN)}
    assert {name: done[name] for name in counts(0, 0, 0, 0)} == counts(70, 228, 128, 288)
    assert list(done["failed"]) == ["site-3"]


def test_a_round_begins_with_nothing(engine: Engine) -> None:
    """What is sent between two rounds, such as the tasks of another workflow, belongs to none."""
    send(engine, "site-1", message(MODEL, DataKind.WEIGHTS))
    receive(engine, "site-1", dense_update())
    with engine.new_context() as fl_ctx:
        engine.fire_event(AppEventType.ROUND_STARTED, fl_ctx)
    done = round_done(engine)
    assert (done["sites"], done["uncounted"], done["upload_bytes"], done["dense_download_bytes"]) == ({}, {}, 0, 0)


def test_a_task_is_counted_when_it_leaves_and_not_before(engine: Engine) -> None:
    """FLARE asks a site to come again when a filter fails: the task was not sent."""
    traffic, fl_ctx = Traffic(), context(engine, "site-1", **{FLContextKey.TASK_DATA: message(MODEL, DataKind.WEIGHTS)})
    traffic.task_to_be_filtered(fl_ctx)
    assert totals(traffic.by_site()) == counts(0, 0, 0, 0)
    traffic.task_sent(fl_ctx)
    traffic.task_sent(context(engine, "site-1", **{FLContextKey.TASK_DATA: message({"w": MODEL["b"]})}))
    assert traffic.by_site() == {"site-1": counts(0, DOWN + 16, 0, DOWN + 16)}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (sparse_update(), UP),
        (dense_update(), UP),
        (update(w=MODEL["w"].astype(np.float16)), UP),
        (update(), UP),  # of samples, but no entry was worth sending
        (update(weight=0), 0),
        (message(MODEL, DataKind.WEIGHTS), DOWN),
        (message({"val": np.zeros(2)}, DataKind.METRICS), 16),
        (make_reply(ReturnCode.EXECUTION_EXCEPTION), 0),
    ],
)
def test_what_dense_exchange_would_cost(engine: Engine, result: Shareable, expected: int) -> None:
    assert dense_bytes(result, engine.new_context()) == expected


@pytest.mark.parametrize("model", [None, "text", make_model_learnable({}, {})])
def test_without_a_global_model_an_update_counts_as_it_is(tmp_path: Path, model: object) -> None:
    fl_ctx = Engine(tmp_path, {}, SITES).new_context()
    fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model, private=True, sticky=False)
    assert dense_bytes(sparse_update(), fl_ctx) == SPARSE


def test_payload_counts_arrays_at_any_depth() -> None:
    nested = Shareable({"a": {"b": [np.zeros(3, np.float32), b"12345"]}, "c": "text", "d": 7})
    assert payload_bytes(nested) == 12 + 5
