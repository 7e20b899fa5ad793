# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A job of three sites that ends with fine-tuning. Test accuracy, by hand:

            local only  global  personal  gain
site-1      0.5         0.6     0.7       +10
site-2      0.8         0.5     0.9       +40
site-3      0.6         0.8     0.75      -5
mean        0.70        0.58    0.83      +25    (100 * a + 300 * b + 100 * c) / 500
std         0.1528      0.1528  0.1041    22.9   of the gains: sqrt((25 + 625 + 400) / 2) around 15

The sites have 100, 300 and 100 test samples.
"""

from __future__ import annotations

from typing import Any

from bundle.report.model import Report
from bundle.report.personal import METRIC, STARTED_FROM
from tests.bundle.conftest import Event, build, job_events

SCORES = {"site-1": (0.5, 0.6, 0.7), "site-2": (0.8, 0.5, 0.9), "site-3": (0.6, 0.8, 0.75)}
TEST_SAMPLES = {"site-1": 100, "site-2": 300, "site-3": 100}
SUMMARY = {
    "local_only": {"mean": 0.7, "std": 0.152753, "worst": 0.5, "worst_site": "site-1"},
    "global": {"mean": 0.58, "std": 0.152753, "worst": 0.5, "worst_site": "site-2"},
    "personal": {"mean": 0.83, "std": 0.104083, "worst": 0.7, "worst_site": "site-1"},
    "harmed_on_test": 1 / 3,
    "harmed_on_validation": 0.0,
}
# Rows: model, columns: site where it is scored.
MATRIX = {
    "site-1": {"site-1": 0.7, "site-2": 0.4, "site-3": 0.3},
    "site-2": {"site-1": 0.2, "site-2": 0.9, "site-3": 0.5},
    "site-3": {"site-1": 0.6, "site-2": 0.5, "site-3": 0.75},
    STARTED_FROM["best"]: {"site-1": 0.6, "site-2": 0.5, "site-3": 0.8},
    STARTED_FROM["final"]: {"site-1": 0.1, "site-2": 0.1, "site-3": 0.1},
}


def fine_tuned(**changes: Any) -> Event:
    sites = {
        site: {
            **{kind: {METRIC: score} for kind, score in zip(("local_only", "global", "personal"), scores, strict=True)},
            "best_epoch": 3,
            "epochs": 6,
            "samples": 10 * TEST_SAMPLES[site],
            "test_samples": TEST_SAMPLES[site],
        }
        for site, scores in SCORES.items()
    }
    event = {"event": "fine_tuned", "time": 18.0, "start_from": "best", "rounds": 2, "sites": sites, "failed": {}}
    return event | {"summary": SUMMARY} | changes


def events(**changes: Any) -> list[Event]:
    """A job of three sites, the third in every round, then fine-tuning."""
    found = job_events()
    found[0]["sites"] = sorted(SCORES)
    for event in found[2:4]:
        event["sites"]["site-3"] = event["sites"]["site-2"]
    return [*found[:-1], fine_tuned(**changes), found[-1]]


def without_site_2(**changes: Any) -> list[Event]:
    sites = {site: row for site, row in fine_tuned()["sites"].items() if site != "site-2"}
    return events(sites=sites, **changes)


def matrix(**changes: dict[str, float]) -> dict[str, dict[str, dict[str, float]]]:
    rows = MATRIX | changes
    return {model: {site: {METRIC: value} for site, value in row.items()} for model, row in rows.items()}


def shared(**changes: Any) -> Report:
    report = build(events(**changes))
    report.cross_site = matrix()
    return report
