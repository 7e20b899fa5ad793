# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Runs with and without the fork server come to the same, to the last digit; and a hundred sites fit on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundle.forked import SOCKET
from tests.jobs.flare import OUR_SIMULATOR, environment, export, progress, run, simulate

pytestmark = pytest.mark.e2e
QUICK = ("dataset=digits", "local_steps=4")
WHEN = {"time", "seconds", "started", "ended", "duration", "train_seconds", "wall_s"}


def without_times(value: Any) -> Any:
    """The values of an event that do not tell when."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in WHEN and "second" not in key}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def scores(workspace: Path) -> list[Any]:
    """What the job came to, round by round, and at each site."""
    return [without_times(event) for event in progress(workspace) if event["event"] == "round"]


@pytest.mark.parametrize(("sites", "threads", "rounds"), [(2, 2, 2), pytest.param(2, 1, 1, marks=pytest.mark.fault)])
def test_scores_are_equal_to_the_last_digit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sites: int, threads: int, rounds: int
) -> None:
    """With a process for a site, and with one for each of its tasks."""
    settings = (*QUICK, f"num_rounds={rounds}")
    job = export("hello-pt", tmp_path / "job", *settings, drop_workflows=("closing_validation", "cross_site_validate"))
    seen = []
    for forks in ("on", "off"):
        if forks == "off":
            monkeypatch.setenv(SOCKET, forks)
        simulate(job, tmp_path / forks, sites=sites, threads=threads, data_root=tmp_path)
        seen.append(scores(tmp_path / forks / "ws"))
        log = (tmp_path / forks / "ws" / "server" / "log.txt").read_text()
        assert "is not forked" not in log
    assert len(seen[0]) == rounds
    assert seen[0] == seen[1]


@pytest.mark.fault
@pytest.mark.parametrize("threads", [2, 100])
def test_a_hundred_sites(tmp_path: Path, threads: int) -> None:
    """On two threads: two hundred processes a round. On a hundred all results come at once; 10 GB of memory."""
    job = export("hello-pt", tmp_path / "job", "dataset=digits", "num_rounds=1", "local_steps=1", "batch_size=8")
    command = [*OUR_SIMULATOR, str(job), "-w", str(tmp_path / "ws"), "-n", "100", "-t", str(threads)]
    done = run(command, tmp_path / "empty", environment(tmp_path))
    assert done.returncode == 0, done.stdout[-4000:]
    (event,) = [event for event in progress(tmp_path / "ws") if event["event"] == "round"]
    assert len(event["sites"]) == 100
