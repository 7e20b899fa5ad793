# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.analytix import AnalyticsDataType, LogWriterName
from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FedEventHeader, FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.utils.analytix_utils import create_analytic_dxo
from nvflare.app_common.app_event_type import AppEventType

from custom.widgets.verify_sites import MOST_WARNINGS, VerifySites
from tests.hostile import EVIL, LONG
from tests.support import Engine


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path, {"verify_sites": VerifySites()}, ["site-1", "site-2"])


@pytest.fixture
def runner(engine: Engine) -> Any:
    """What FLARE's agent calls; it keeps whom it heard of."""
    seen: list[tuple[str, str]] = []

    def called(client: Client, *arguments: Any) -> str:
        seen.append((client.name, arguments[-1].get_peer_context().get_identity_name()))
        return "answer"

    def dispatch(topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:
        seen.append((topic, str(request.get_header(FedEventHeader.EVENT_TYPE))))
        return make_reply(ReturnCode.OK)

    runner = SimpleNamespace(process_task_request=called, process_submission=called, seen=seen)
    engine.run_manager = SimpleNamespace(aux_runner=SimpleNamespace(dispatch=dispatch))  # type: ignore[attr-defined]
    with engine.new_context() as fl_ctx:
        fl_ctx.set_prop(FLContextKey.RUNNER, runner, private=True, sticky=True)
        engine.fire_event(EventType.START_RUN, fl_ctx)
    return runner


def context(engine: Engine, claimed: str) -> FLContext:
    """Of a message whose sender says that it is `claimed`."""
    peer, fl_ctx = FLContext(), engine.new_context()
    peer.set_public_props({ReservedKey.IDENTITY_NAME: claimed, "held_version": "7"})
    fl_ctx.set_peer_context(peer)
    return fl_ctx


def warnings(engine: Engine) -> list[str]:
    path = engine.run_dir / "progress.jsonl"
    return [json.loads(line)["reason"] for line in path.read_text().splitlines()] if path.is_file() else []


def test_a_site_that_says_its_own_name_is_let_through(engine: Engine, runner: Any) -> None:
    client = Client("site-1", "token")
    assert runner.process_task_request(client, context(engine, "site-1")) == "answer"
    runner.process_submission(client, "train", "id", {}, context(engine, "site-1"))
    assert runner.seen == [("site-1", "site-1")] * 2
    assert warnings(engine) == []


def test_a_result_in_anothers_name_does_not_count(engine: Engine, runner: Any) -> None:
    for _ in range(3):
        runner.process_submission(Client("site-1", "token"), "train", "id", {}, context(engine, "site-2"))
    assert runner.seen == []
    assert warnings(engine) == ["site-1 sent messages in the name of site-2; they do not count"]


def test_who_asks_in_anothers_name_gets_its_own_task(engine: Engine, runner: Any) -> None:
    fl_ctx = context(engine, "site-2")
    runner.process_task_request(Client("site-1", "token"), fl_ctx)
    assert runner.seen == [("site-1", "site-1")]
    assert fl_ctx.get_peer_context().get_prop("held_version") == "7"


@pytest.mark.parametrize(
    ("event", "passes"),
    [
        ("fed.analytix_log_stats", True),
        ("analytix_log_stats", True),
        (EventType.START_RUN, False),
        (AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, False),
        (None, False),
    ],
)
def test_events_of_sites_are_metrics(engine: Engine, runner: Any, event: str | None, passes: bool) -> None:
    request = Shareable()
    request.set_header(FedEventHeader.EVENT_TYPE, event)
    request.set_peer_props({ReservedKey.IDENTITY_NAME: "site-1"})
    reply = engine.run_manager.aux_runner.dispatch("fed.event", request, engine.new_context())  # type: ignore[attr-defined]
    assert (reply.get_return_code() == ReturnCode.OK) is passes
    assert runner.seen == ([("fed.event", event)] if passes else [])
    told = f"site-1 sent an event {event}; only those of metrics are taken"
    assert warnings(engine) == ([] if passes else [told])


def test_other_messages_of_sites_are_let_through(engine: Engine, runner: Any) -> None:
    engine.run_manager.aux_runner.dispatch("__task_check__", Shareable(), engine.new_context())  # type: ignore[attr-defined]
    assert runner.seen == [("__task_check__", "None")]


def test_the_report_does_not_grow_with_the_number_of_names(engine: Engine, runner: Any) -> None:
    for number in range(100):
        runner.process_submission(Client("site-1", "token"), "train", "id", {}, context(engine, f"ghost-{number}"))
    assert len(warnings(engine)) == MOST_WARNINGS


@pytest.mark.parametrize(
    ("tag", "value", "passes"),
    [
        ("val_accuracy", 0.5, True),
        ("site/val_accuracy", 0.5, True),
        ("losses", {"train": 1.0, "test/all": 2.0}, True),
        (EVIL, 0.5, False),
        (LONG, 0.5, False),
        ("losses", {EVIL: 1.0}, False),
        ("losses", {"/../../../escaped": 1.0}, False),  # FLARE makes a folder of it
        ("../escaped", 0.5, False),
    ],
)
def test_names_of_metrics_become_tags_and_folders(
    engine: Engine, runner: Any, tag: str, value: Any, passes: bool
) -> None:
    kind = AnalyticsDataType.SCALARS if isinstance(value, dict) else AnalyticsDataType.SCALAR
    request = create_analytic_dxo(tag, value, kind, LogWriterName.TORCH_TB).to_shareable()
    request.set_header(FedEventHeader.EVENT_TYPE, "fed.analytix_log_stats")
    request.set_peer_props({ReservedKey.IDENTITY_NAME: "site-1"})
    reply = engine.run_manager.aux_runner.dispatch("fed.event", request, engine.new_context())  # type: ignore[attr-defined]
    assert (reply.get_return_code() == ReturnCode.OK) is passes
    told = warnings(engine)
    assert len(told) == (0 if passes else 1)
    assert all(reason.startswith("site-1 ") and reason.isprintable() and len(reason) < 300 for reason in told)
