# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which site a report says to look at; the events are as ProgressLog writes them."""

from __future__ import annotations

import io
from typing import Any

from bundle.live import Live
from bundle.report.outliers import broken_together, find_outliers
from custom.events import Event
from tests.bundle.conftest import build, job_events, typed

HONEST = {"norm": 1.0, "norm_ratio": 1.0, "cosine": 0.5, "samples_ratio": 1.0}


def round_of(number: int, task: str = "train", **odd: float) -> dict[str, Any]:
    """Four sites; `odd` is of site-3."""
    sites = {f"site-{k}": {"samples": 10.0, "update": HONEST | (odd if k == 3 else {})} for k in range(1, 5)}
    return {"event": "round", "round": number, "num_rounds": 3, "task": task, "sites": sites}


def read(events: list[dict[str, Any]]) -> list[Event]:
    return [typed(event) for event in events]


def not_finite(*sites: str) -> list[dict[str, Any]]:
    reason = "fc1.weight: 3 of 9 values are NaN or infinite [update-not-finite]"
    return [{"event": "site_error", "site": site, "task": "train", "reason": f"{site} {reason}"} for site in sites]


def test_a_blast_is_in_the_report_its_json_and_the_live_lines():
    events = [*job_events()[:2], round_of(1), round_of(2, norm_ratio=99.9), round_of(3)]
    report = build(events)
    assert [(outlier.site, outlier.kind, outlier.first) for outlier in report.outliers] == [
        ("site-3", "norm", "round 2")
    ]
    (row,) = report.to_json()["outliers"]
    assert row["sentence"] in report.warnings
    assert (row["site"], row["value"], row["when"]) == ("site-3", 99.9, "round 2")
    out = io.StringIO()
    live = Live(out)
    for event in events:
        live.show(typed(event))
    assert out.getvalue().count("! site-3: its update was 99.9 x") == 1


def test_rounds_of_another_task_are_told_apart():
    (found,) = find_outliers(read([round_of(1), round_of(1, "meta_train", norm_ratio=50.0)]))
    assert found.when == "meta_train round 1"


def test_events_of_an_older_job_know_nothing_of_it():
    events = [{"event": "round", "round": 1, "sites": {"site-1": {"samples": 10.0}}}]
    assert find_outliers(read(events)) == []


def test_where_several_break_at_once_the_largest_update_before_is_named():
    """Also in a round that never ended, which has no line of its own."""
    blast = round_of(1, norm_ratio=30.0)
    for events in ([blast, *not_finite("site-1", "site-2")], [blast, *not_finite("site-1", "site-2"), round_of(2)]):
        (sentence,) = broken_together(read(events))
        assert "site-1, site-2" in sentence
        assert "that of site-3, 30 x the others' median in round 1" in sentence


def test_one_that_breaks_alone_is_its_own_cause_and_nobody_is_accused_without_evidence():
    assert broken_together(read([round_of(1, norm_ratio=30.0), *not_finite("site-1", "site-1")])) == []
    assert broken_together(read([round_of(1), *not_finite("site-1", "site-2")])) == []
    assert broken_together(read(not_finite("site-1", "site-2"))) == []
