# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How far a running job is, in words and numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bundle.report.model import Report, Round
from custom.events import Event, parse
from dashboard.progress import progress
from dashboard.system import Job

RUNNING = Job("id", "mnist", "RUNNING")


def event(kind: str, **fields: Any) -> Event:
    return parse(json.dumps({"event": kind, **fields}).encode())


def rounds(*seconds: float, num_rounds: int = 10, task: str = "train", begin: int = 0) -> list[Round]:
    return [
        Round(task=task, round=n, position=begin + n, num_rounds=num_rounds, seconds=s)
        for n, s in enumerate(seconds, start=1)
    ]


def test_counts_the_round_that_is_going_on() -> None:
    now = progress(RUNNING, Report(num_rounds=10, rounds=rounds(9.0, 2.0, 4.0, 3.0)), [])
    assert now.text == "5 of 10"
    assert now.share == 0.4
    assert now.left_s == 6 * 3.0  # by the last three, for the first is slow


def test_knows_from_the_settings_before_the_first_round_is_over() -> None:
    now = progress(RUNNING, Report(), [], planned=5)
    assert (now.text, now.share, now.left_s) == ("1 of 5", 0.0, None)


def test_rounds_of_the_job_that_it_continues_count() -> None:
    """After rounds 6 and 7 of a job that was stopped after its fifth."""
    rows = [Round(task="train", round=n, position=n, num_rounds=10, seconds=1.0) for n in (6, 7)]
    now = progress(RUNNING, Report(num_rounds=10, rounds=rows), [])
    assert (now.text, now.share, now.left_s) == ("8 of 10", 0.7, 3.0)


def test_a_task_that_has_not_begun_counts_if_the_settings_tell_of_it() -> None:
    now = progress(RUNNING, Report(num_rounds=5, rounds=rounds(1.0, 1.0, 1.0, 1.0, 1.0, num_rounds=5)), [], planned=15)
    assert (now.text, now.share) == ("6 of 15", 5 / 15)


def test_says_nothing_that_it_does_not_know() -> None:
    now = progress(RUNNING, Report(), [])
    assert (now.text, now.share, now.left_s) == ("-", None, None)


def test_after_the_last_round() -> None:
    now = progress(RUNNING, Report(num_rounds=2, rounds=rounds(1.0, 1.0, num_rounds=2)), [])
    assert (now.text, now.share, now.left_s) == ("all 2 done", 1.0, 0)


def test_another_task_takes_another_time() -> None:
    both = rounds(1.0, 1.0, num_rounds=2) + rounds(8.0, num_rounds=3, task="meta_train", begin=2)
    assert progress(RUNNING, Report(num_rounds=5, rounds=both), []).left_s == 2 * 8.0


@pytest.mark.parametrize(
    ("status", "events", "phase"),
    [
        ("SUBMITTED", [], "waiting for FLARE to start it"),
        ("RUNNING", [], "starting at the sites"),
        ("RUNNING", [event("workflow_started", workflow="pre_train")], "comparing the sites' models and data"),
        (
            "RUNNING",
            [
                event("workflow_started", workflow="pre_train"),
                event("workflow_started", workflow="my_own"),
                event("round", round=1),
            ],
            "my_own",
        ),
        ("RUNNING", [event("workflow_started", workflow="x"), event("job_ended")], "FLARE is collecting the result"),
    ],
)
def test_phases(status: str, events: list[Event], phase: str) -> None:
    assert progress(Job("id", "mnist", status), Report(), events).phase == phase
