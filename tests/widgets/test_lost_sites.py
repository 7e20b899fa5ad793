# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.impl.wf_comm_server import WFCommServer

from controllers.closing_validation import ClosingValidation
from custom.widgets.lost_sites import BACK, LOST, PROCESSES, LostSites
from tests.support import Engine

WORKFLOWS = ("one", "two", "three")


def make_engine(folder: Path, components: dict[str, Any]) -> Engine:
    """With three workflows and a communicator for each, as FLARE's configurator makes them."""
    workflows = {name: ClosingValidation() for name in WORKFLOWS}
    engine = Engine(folder, {**components, **workflows}, ["site-1", "site-2"])
    for workflow in workflows.values():
        workflow.set_communicator(WFCommServer())
        workflow.communicator._engine = engine
        workflow.communicator._dead_client_grace = 0
    return engine


def start(engine: Engine, workflow: str) -> WFCommServer:
    with engine.new_context() as fl_ctx:
        fl_ctx.set_prop(FLContextKey.WORKFLOW, workflow, sticky=True)
        engine.fire_event(EventType.START_WORKFLOW, fl_ctx)
    return engine.components[workflow].communicator


def lose(engine: Engine, communicator: WFCommServer) -> None:
    """As when the server has not heard of site-2 for its time-outs."""
    with engine.new_context() as fl_ctx:
        communicator.process_dead_client_report("site-2", fl_ctx)
    communicator._check_dead_clients()


def warnings(engine: Engine) -> list[str]:
    path = engine.run_dir / "progress.jsonl"
    return [json.loads(line)["reason"] for line in path.read_text().splitlines()] if path.is_file() else []


@pytest.mark.parametrize("components", [{}, {"lost_sites": LostSites()}])
def test_a_later_workflow_knows_of_a_lost_site(tmp_path: Path, components: dict[str, Any]) -> None:
    """FLARE's by itself does not: it would wait for site-2."""
    engine = make_engine(tmp_path, components)
    lose(engine, start(engine, "one"))
    later = [start(engine, name).get_client_disconnect_time("site-2") is not None for name in WORKFLOWS[1:]]
    assert later == [bool(components)] * 2
    assert warnings(engine) == ([f"site-2: {LOST}"] if components else [])


def test_a_site_that_comes_back_is_waited_for_again(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, {"lost_sites": LostSites()})
    lose(engine, start(engine, "one"))
    second = start(engine, "two")
    with engine.new_context() as fl_ctx:
        second.client_is_active("site-2", "getTask", fl_ctx)
    assert start(engine, "three").get_client_disconnect_time("site-2") is None
    assert warnings(engine) == [f"site-2: {LOST}", f"site-2: {BACK}"]


def test_a_site_reported_and_not_yet_given_up_is_watched_on(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, {"lost_sites": LostSites()})
    with engine.new_context() as fl_ctx:
        start(engine, "one").process_dead_client_report("site-2", fl_ctx)
    second = start(engine, "two")
    second._check_dead_clients()
    assert second.get_client_disconnect_time("site-2") is not None
    assert warnings(engine) == [f"site-2: {LOST}"]


def test_a_site_whose_process_has_ended_is_an_error_with_its_reason(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, {"lost_sites": LostSites()})
    first = start(engine, "one")
    with engine.new_context() as fl_ctx:
        fl_ctx.set_prop(PROCESSES, {"site-2": "its process was killed"}, private=True, sticky=True)
    lose(engine, first)
    lines = (engine.run_dir / "progress.jsonl").read_text().splitlines()
    found = [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]
    assert found == [{"event": "site_error", "site": "site-2", "task": "one", "reason": "its process was killed"}]
