# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the report says of scores that are unlike all others, and by what the best model was chosen."""

from __future__ import annotations

import pytest

from bundle.report.claims import doubtful_scores
from bundle.report.html import to_html
from bundle.report.model import Report
from bundle.report.text import to_text
from tests.bundle.conftest import build, job_events

GLOBAL = "SRV_FL_global_model.pt"


def report(metric: str = "test_accuracy", model: str = GLOBAL, **scores: float) -> Report:
    return Report(cross_site={model: {site.replace("_", "-"): {metric: value} for site, value in scores.items()}})


@pytest.mark.parametrize(
    "one",
    [
        report(site_1=0.95, site_2=0.92, site_3=0.1),
        report(site_1=0.20, site_2=0.35, site_3=1.0, site_4=0.3),
        report(model="site-1", site_2=0.92, site_4=0.95, site_3=0.1),
    ],
)
def test_a_site_far_from_all_others_is_named(one: Report) -> None:
    (sentence,) = doubtful_scores(one)
    assert sentence.startswith("site-3 ")


@pytest.mark.parametrize(
    "one",
    [
        report(site_1=0.95, site_2=0.1),  # which of the two?
        report(site_1=0.95, site_2=0.1, site_3=0.55),  # sites that differ
        report(site_1=0.95, site_2=0.92, site_3=0.4),  # as honest sites do
        report(model="site-3", site_1=0.2, site_2=0.25, site_3=1.0),  # its own model, on its own data
        report("test_loss", site_1=0.1, site_2=0.1, site_3=9.0),
        report("mystery", site_1=0.1, site_2=0.1, site_3=9.0),
        Report(),
    ],
)
def test_nobody_else_is(one: Report) -> None:
    assert doubtful_scores(one) == []


def test_the_number_that_chose_the_best_model_stands_beside_the_one_of_the_table() -> None:
    events = job_events()
    best = next(event for event in events if event["event"] == "best" and event["round"] == 2)
    best |= {"value": 0.7, "rule": "trimmed mean of the sites"}
    shown = build(events)
    assert shown.best == {
        "round": 2,
        "metric": "val_accuracy",
        "value": 0.75,
        "chosen_by": {"rule": "trimmed mean of the sites", "value": 0.7},
    }
    sentence = "chosen by the trimmed mean of the sites, 0.7000"
    assert f"* best: round 2, val_accuracy 0.7500 ({sentence})" in to_text(shown)
    assert sentence in to_html(shown)
