# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A report of a job with two classes: a table a metric, and the right means over sites."""

from __future__ import annotations

import re

from bundle.report.html import to_html
from bundle.report.model import Report
from bundle.report.text import to_text
from tests.bundle.conftest import build, job_events, round_event


def report() -> Report:
    """Site 1 has 300 samples and 2 ill among its 10 validation images, site 2 has 100 and 8 ill."""
    events = job_events()
    scores = {
        "site-1": {"val_accuracy": 0.5, "val_sensitivity": 1.0, "val_positives": 2.0, "val_negatives": 8.0},
        "site-2": {"val_accuracy": 0.9, "val_sensitivity": 0.5, "val_positives": 8.0, "val_negatives": 2.0},
    }
    scores["site-1"] |= {"val_specificity": 0.75, "val_auc": 0.9}
    events[2] = round_event(1, (0.1, 0.3), (2.0, 1.0))
    for event in events:
        if event["event"] == "validation":
            event["sites"] = scores
        if event["event"] == "best":
            event["metric"] = "val_auc"
    found = build(events)
    test = {"test_accuracy": 0.5, "test_sensitivity": 1.0, "test_positives": 10.0, "test_negatives": 30.0}
    found.cross_site = {
        "SRV_FL_global_model.pt": {
            "site-1": test,
            "site-2": {"test_accuracy": 0.9, "test_sensitivity": 0.5, "test_positives": 5.0, "test_negatives": 5.0},
        }
    }
    return found


def test_the_metric_of_selection_comes_first_and_every_other_has_a_table() -> None:
    text = to_text(report())
    titles = re.findall(r"^(\w+) of the global model after each round$", text, re.MULTILINE)
    assert titles == ["val_auc", "val_accuracy", "val_sensitivity", "val_specificity"]
    assert re.findall(r"^(\w+) of each model", text, re.MULTILINE) == ["test_accuracy", "test_sensitivity"]
    assert text.count("seconds") == 1
    page = to_html(report())
    for title in titles:
        assert f"<h2>{title} of the global model after each round</h2>" in page
    assert "positives" not in text + page


def test_means_over_sites_are_those_of_the_samples() -> None:
    """Sensitivity (2 * 1 + 8 * 0.5) / 10, accuracy by training samples (3 * 0.5 + 0.9) / 4; AUC of the one site."""
    row = report().rounds[-1]
    assert row.aggregate["val_sensitivity"] == 0.6
    assert row.aggregate["val_accuracy"] == 0.6
    assert row.aggregate["val_auc"] == 0.9
    assert row.aggregate["val_positives"] == 10


def test_the_cross_site_tables_have_all_sites_together() -> None:
    """(40 * 0.5 + 10 * 0.9) / 50 = 0.58, and (10 * 1 + 5 * 0.5) / 15 = 0.8333."""
    text = to_text(report())
    rows = [re.split(r"\s{2,}", line) for line in text.splitlines() if line.startswith("global, last round")]
    assert [row[1:] for row in rows] == [["0.5800", "0.5000", "0.9000"], ["0.8333", "1.0000", "0.5000"]]
    assert "<td>0.8333</td>" in to_html(report())


def test_a_site_without_a_metric_has_a_dash() -> None:
    line = next(line for line in to_text(report()).splitlines() if line.startswith("2/2"))
    assert re.split(r"\s{2,}", line)[:4] == ["2/2 *", "0.9000", "0.9000", "-"]
