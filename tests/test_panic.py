# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a component raises when a run starts: FLARE's own event loop logs it, and goes on."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.utils.event import fire_event_to_components
from nvflare.app_common.app_event_type import AppEventType

from custom.errors import BundleError
from custom.executors.trainer import Trainer
from custom.panic import ends_job, fails_next_task
from tests.executors.test_executors import execute
from tests.support import Engine

ROOT = Path(__file__).parents[1]
ERRORS = [
    (BundleError("is wrong", code="setting-value", key="depth"), "depth: is wrong [setting-value]"),
    (OSError("no such thing"), "no such thing"),
]


class AtServer(FLComponent):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type != EventType.FATAL_SYSTEM_ERROR:
            raise self.error


class AtSite(AtServer):
    @fails_next_task
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        raise self.error


def fire(engine: Engine, component: FLComponent, event_type: str) -> None:
    with engine.new_context() as fl_ctx:
        fire_event_to_components(event_type, [component], fl_ctx)


@pytest.mark.parametrize(("error", "message"), ERRORS)
@pytest.mark.parametrize("event_type", [EventType.START_RUN, EventType.START_WORKFLOW, AppEventType.ROUND_STARTED])
def test_at_the_server_it_ends_the_job(tmp_path: Path, error: Exception, message: str, event_type: str) -> None:
    component = AtServer(error)
    engine = Engine(tmp_path, {"part": component}, ["site-1"])
    fire(engine, component, event_type)
    assert message in engine.panic()


def test_at_the_server_other_events_are_flare_s_matter(tmp_path: Path) -> None:
    component = AtServer(OSError("no such thing"))
    engine = Engine(tmp_path, {"part": component}, ["site-1"])
    fire(engine, component, EventType.END_RUN)
    assert engine.panic() == ""


@pytest.mark.parametrize(("error", "message"), ERRORS)
def test_at_a_site_it_is_the_answer_to_every_task(tmp_path: Path, error: Exception, message: str) -> None:
    engine = Engine(tmp_path, {}, ["site-1"], identity="site-1")
    fire(engine, AtSite(error), EventType.START_RUN)
    for task in ("get_weights", "train"):
        reply = execute(engine, Trainer(), task, Shareable())
        assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
        assert message in reply.get_header(ReservedHeaderKey.ERROR)
    assert engine.panic() == ""  # which would stop the site's process, and say nothing to the server


def test_every_component_has_one_of_the_two() -> None:
    """Read from the source; one that is forgotten would raise into FLARE's log."""
    found: dict[str, list[Any]] = {}
    for folder in ("custom", "controllers"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and node.name == "handle_event":
                    names = [decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)]
                    found[path.stem] = names
    assert len(found) > 10
    sites = {"site_task", "model_provider", "fine_tuner", "apply_changes", "sparsify", "carry_over"}
    assert found == {name: ["fails_next_task" if name in sites else "ends_job"] for name in found}
