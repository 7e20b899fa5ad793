# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""SendChanges as FLARE calls it; every delivery checks that the site has the server's very model."""

from __future__ import annotations

import copy
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.fuel.utils import fobs

from custom.compression import changes, wire
from custom.errors import BundleError
from custom.filters.apply_changes import ApplyChanges
from custom.filters.send_changes import SendChanges
from custom.keys import HELD_VERSION, POSITIONS, TAKEN_ROUND
from custom.widgets.progress_log import ProgressLog
from custom.widgets.traffic import payload_bytes
from tests.filters.downlink import Downlink, add, assert_same, is_whole
from tests.filters.flare_contexts import Server
from tests.support import arrays

DENSE = 4 * 4  # bytes of w


@pytest.fixture
def downlink(tmp_path: Path) -> Downlink:
    return Downlink(tmp_path, arrays(w=[1, 2, 3, 4]))


def test_the_first_task_brings_the_model_and_later_ones_what_has_changed(downlink):
    assert downlink.site().holds == ""
    first = downlink.deliver()
    assert (is_whole(first), payload_bytes(first)) == (True, DENSE)
    downlink.next_round(arrays(w=[0, 5, 0, 0]))
    second = downlink.deliver()
    dxo = from_shareable(second)
    assert (dxo.data_kind, dxo.data["w"].tolist()) == (DataKind.WEIGHTS, [7])  # the new value, not the difference
    assert dxo.get_meta_prop(POSITIONS)["tensors"]["w"] == ["kept", 0, b"\x40", [4]]  # a bitmap: 0100
    assert payload_bytes(second) == 4 + 1


def test_the_bytes_of_a_thousandth(tmp_path):
    """10 of 10,000 float32 values; their positions take at most log2 C(10000, 10) + 0.12 * 10 bits and two paddings."""
    downlink = Downlink(tmp_path, arrays(w=np.zeros(10_000), bias=np.zeros(64)))
    assert payload_bytes(downlink.deliver()) == 4 * 10_064
    update = np.zeros(10_000, np.float32)
    update[np.random.default_rng(0).choice(10_000, 10, replace=False)] = 1
    downlink.next_round({"w": update})
    assert 4 * 10 < payload_bytes(downlink.deliver()) <= 4 * 10 + (math.log2(math.comb(10_000, 10)) + 1.2) / 8 + 2


def test_progress_counts_what_is_sent(downlink, tmp_path):
    progress = ProgressLog()
    progress._run_dir = tmp_path
    for _ in range(3):
        progress.handle_event(AppEventType.ROUND_STARTED, downlink.server.context())
        for name in ("site-1", "site-2"):
            downlink.deliver(name)
            progress.handle_event(EventType.AFTER_TASK_DATA_FILTER, downlink.last)
        fl_ctx = downlink.server.context()
        fl_ctx.set_prop(AppConstants.NUM_ROUNDS, 3, private=True, sticky=False)
        progress.handle_event(AppEventType.ROUND_DONE, fl_ctx)
        downlink.next_round(add(1))
    written = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [event["download_bytes"] for event in written] == [2 * DENSE, 2 * 5, 2 * 5]


def test_where_nothing_has_changed_nothing_travels(downlink):
    downlink.deliver()
    for _ in range(2):  # another round, and the same task again, of which the answer was lost
        downlink.next_round({})
        for message in (downlink.deliver(), downlink.deliver()):
            assert (is_whole(message), payload_bytes(message)) == (False, 0)


def test_zeros_of_both_signs_all_types_and_shapes(tmp_path):
    """Types that the wire rounds, and what has changed altogether, travel as they are; what has not, not at all."""
    model = {
        "f32": np.array([[0.0, -0.0], [1e-45, 3.4e38]], np.float32),
        "f16": np.array([0.0, -0.0, 6e-8, 65504], np.float16),
        "f64": np.array([0.1, 0.2, 0.3]),
        "i64": np.array([1, 2, 2**62 + 1]),
        "flag": np.array([True, False]),
        "scalar": np.array(1.5, np.float32),
        "counter": np.array(7),
        "empty": np.empty((0, 3), np.float32),
        "same": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    }
    downlink = Downlink(tmp_path, dict(model))
    assert is_whole(downlink.deliver())
    new = {name: value.copy() for name, value in model.items() if name != "same"}
    new["f32"][0] = [-0.0, 0.0]
    new["f16"][1] = 0.0
    new["f64"][1] = np.nextafter(0.2, 1)
    new["i64"][2] += 1
    new["flag"][1] = True
    new["scalar"] = np.array(-1.5, np.float32)
    new["counter"] = np.array(8)
    new["fortran"][1, 0] = 9
    downlink.model.update(new)
    downlink.enter(1, "train_1")
    dxo = from_shareable(downlink.deliver())
    tensors = dxo.get_meta_prop(POSITIONS)["tensors"]
    assert {name: dxo.data[name].tolist() for name in tensors} == {"f32": [-0.0, 0.0], "f16": [0.0], "fortran": [9]}
    assert dxo.data.keys() - tensors == {"f64", "i64", "flag", "scalar", "counter"}


ELEMENTS = {
    "float32": st.sampled_from([0.0, -0.0, 1.0, 2.0**-149]),
    "float16": st.sampled_from([0.0, -0.0, 1.0, 2.0**-24]),
    "float64": st.sampled_from([0.0, -0.0, 0.1]),
    "int32": st.integers(-1, 1),
}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_two_models_of_one_kind(tmp_path_factory, data):
    """Exact, and never larger than the model by more than two bytes a tensor."""
    tensors = st.tuples(st.sampled_from(sorted(ELEMENTS)), hnp.array_shapes(min_dims=0, max_dims=2, min_side=0))
    kinds = data.draw(st.dictionaries(st.sampled_from(["a.weight", "b", "c"]), tensors, min_size=1))

    def draw() -> dict[str, np.ndarray]:
        drawn = {
            n: data.draw(hnp.arrays(dtype, shape, elements=ELEMENTS[dtype])) for n, (dtype, shape) in kinds.items()
        }
        return {name: np.asarray(value) for name, value in drawn.items()}

    downlink = Downlink(tmp_path_factory.mktemp("run"), draw())
    for number in range(1, 4):
        message = downlink.deliver()
        assert payload_bytes(message) <= payload_bytes(downlink.model) + 2 * len(kinds)
        downlink.model.update(draw())
        downlink.enter(number, "train_1")


@pytest.mark.parametrize(
    "new",
    [
        arrays(w=[1, 2, 3, math.nan]),
        arrays(w=[1, 2, 3, math.inf]),
        arrays(w=[[1, 2], [3, 5]]),
        {"w": np.array([1, 2, 3, 5], np.float16)},
        arrays(w=[1, 2, 3, 4], v=[1]),
        arrays(v=[1, 2, 3, 4]),
    ],
)
def test_what_has_no_entries_in_common_goes_whole(new, downlink):
    downlink.deliver()
    downlink.model.clear()
    downlink.model.update(new)
    downlink.enter(1, "train_1")
    assert is_whole(downlink.deliver())
    downlink.enter(2, "train_1")
    assert is_whole(downlink.deliver()) == (not np.isfinite(np.sum(next(iter(new.values())))))


@pytest.mark.parametrize(("history", "whole"), [(1, True), (2, False)])
def test_a_site_that_skips_a_round(history, whole, tmp_path):
    downlink = Downlink(tmp_path, arrays(w=[1, 2, 3, 4]), history=history)
    for name in ("site-1", "site-2"):
        downlink.deliver(name)
    for number in range(2):
        downlink.next_round(add(number))
        assert payload_bytes(downlink.deliver("site-1")) == 4 + 1
    message = downlink.deliver("site-2")
    assert (is_whole(message), payload_bytes(message)) == (whole, DENSE if whole else 2 * 4 + 1)
    assert len(downlink.send._models) == 1 + history


def test_models_are_kept_by_reference_and_dropped(downlink):
    kept = []
    for _ in range(4):
        kept.append(from_shareable(downlink.broadcast).data["w"])
        downlink.deliver()
        assert [model["w"] for model in downlink.send._models.values()] == [*kept][-2:]
        assert all(model["w"] is w for model, w in zip(downlink.send._models.values(), kept[-2:], strict=False))
        downlink.next_round(add(0))


def test_another_run_of_the_server_does_not_know_what_a_site_holds(downlink):
    downlink.deliver()
    downlink.start()
    downlink.enter(0, "train_1")  # the same workflow, round and model
    assert is_whole(downlink.deliver())


def test_what_a_site_claims_is_looked_up_and_nothing_else(downlink):
    downlink.deliver()
    for claim in (["a list"], 7, "", "train_1 0", None):
        with downlink.site().engine.new_context() as fl_ctx:
            fl_ctx.set_prop(HELD_VERSION, claim, private=False, sticky=True)
        assert is_whole(downlink.hand_out())


def test_workflows_share_what_a_site_holds(downlink):
    """A second ScatterAndGather starts from the model of the first, with rounds of its own."""
    downlink.deliver()
    downlink.next_round(add(0))
    downlink.deliver()
    downlink.workflow, downlink.round = "train_2", -1
    downlink.next_round(add(1))
    assert downlink.round == 0
    message = downlink.deliver()
    assert (is_whole(message), payload_bytes(message)) == (False, 5)
    assert downlink.site().holds.split()[1:3] == ["train_2", "0"]


def test_a_model_changed_in_place_is_no_base(downlink):
    """FullModelShareableGenerator replaces arrays; who writes into them gets correct models, and whole ones."""
    downlink.deliver()
    from_shareable(downlink.broadcast).data["w"][0] += 1
    downlink.next_round(add(0))
    assert is_whole(downlink.deliver())


def test_nothing_else_of_the_task_changes(downlink):
    for whole in (True, False):
        task = downlink.task()
        task.set_header(TAKEN_ROUND, 3)
        headers, model = copy.deepcopy(task[ReservedHeaderKey.HEADERS]), from_shareable(task)
        message = downlink.hand_out(task=task)
        assert is_whole(message) == whole
        assert message[ReservedHeaderKey.HEADERS].items() > headers.items()
        assert task[ReservedHeaderKey.HEADERS] == headers
        assert from_shareable(task).data is model.data is from_shareable(downlink.broadcast).data
        assert (model.data["w"].tolist(), model.meta) == ([1, 2, 3, 4], {"note": [1]})
        received = downlink.site().apply(fobs.loads(fobs.dumps(message)))
        assert received[ReservedHeaderKey.HEADERS] == headers
        got = from_shareable(received)
        assert (got.data_kind, got.meta) == (DataKind.WEIGHTS, {"note": [1]})
        assert_same(got.data, model.data)


def test_dense_and_what_is_no_model_pass(tmp_path, downlink):
    dense = Downlink(tmp_path / "dense", arrays(w=[1]), downlink="dense")
    others = (
        Shareable(),
        DXO(DataKind.WEIGHT_DIFF, data=arrays(w=[1])).to_shareable(),
        DXO(DataKind.WEIGHTS, data={}).to_shareable(),
        DXO(DataKind.WEIGHTS, data={"w": torch.zeros(2)}).to_shareable(),
    )
    for place, task in [(dense, dense.task()), *((downlink, other) for other in others)]:
        message = place.hand_out(task=task)
        assert message is task
        assert place.site().apply(message) is task
        assert not place.site().file.exists()


def test_changes_are_computed_once_for_all_sites(tmp_path, monkeypatch):
    downlink, names = Downlink(tmp_path, arrays(w=np.zeros(100_000))), [f"site-{number}" for number in range(8)]
    for name in names:
        downlink.deliver(name)
    downlink.next_round(add(5, 100_000))
    calls: list[str] = []
    for module, name in ((wire, "encode"), (changes, "name_version")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1])
    with ThreadPoolExecutor(8) as pool:
        messages = list(pool.map(downlink.hand_out, names))
    assert sorted(calls) == ["encode", "name_version"]
    assert len({id(message) for message in messages}) == 8
    assert len({id(from_shareable(message).data["w"]) for message in messages}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"downlink": "x"}, "SendChanges downlink: expected sparse or dense, got x"),
        ({"downlink": ["sparse"]}, "SendChanges downlink: expected sparse or dense"),
        ({"history": 0}, "SendChanges history: expected a whole number from 1, got 0"),
        ({"history": 1.5}, "SendChanges history: expected"),
        ({"history": True}, "SendChanges history: expected"),
    ],
)
def test_bad_settings_end_the_job_at_its_start(arguments, message):
    send, server = SendChanges(**arguments), Server(arrays(w=[1]))
    with pytest.raises(BundleError) as raised:
        send.check()
    assert message in str(raised.value)
    send.handle_event(EventType.START_RUN, server.context())
    assert [(kind, message in reason) for kind, reason in server.engine.events] == [
        (EventType.FATAL_SYSTEM_ERROR, True)
    ]


def test_settings_may_be_left_out():
    SendChanges().check()
    ApplyChanges()
