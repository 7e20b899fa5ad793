# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a site takes over of an earlier job, and what it says where nothing is left."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from nvflare.apis.event_type import EventType

from custom.widgets.carry_over import CarryOver
from tests.support import Engine


def start(engine: Engine) -> None:
    with engine.new_context() as fl_ctx:
        engine.fire_event(EventType.START_RUN, fl_ctx)


@pytest.mark.parametrize("simulated", [False, True])
def test_what_it_kept_is_copied_once(tmp_path: Path, simulated: bool) -> None:
    old = tmp_path / ("old/site-1/simulate_job" if simulated else "new/earlier")
    old.mkdir(parents=True)
    for name in ("first_model.pt", "local_model.pt", "residual_0000002a.pt", "log.txt"):
        (old / name).write_text(f"old {name}")
    widget = CarryOver("simulate_job", str(tmp_path / "old")) if simulated else CarryOver("earlier")
    engine = Engine(tmp_path / "new", {"carry_over": widget}, ["site-1"], identity="site-1")
    start(engine)
    assert sorted(path.name for path in engine.run_dir.iterdir()) == [
        "first_model.pt",
        "local_model.pt",
        "residual_0000002a.pt",
    ]
    (engine.run_dir / "local_model.pt").write_text("new")
    start(engine)  # the process of the next task
    assert (engine.run_dir / "local_model.pt").read_text() == "new"
    assert (engine.run_dir / "first_model.pt").read_text() == "old first_model.pt"


def test_a_site_that_has_nothing_left_says_what_that_means(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(tmp_path, {"carry_over": CarryOver("earlier")}, ["site-1"], identity="site-1")
    with caplog.at_level(logging.WARNING):
        start(engine)
    assert f"no run folder {tmp_path / 'earlier'}" in caplog.text
    assert engine.panic() == ""
