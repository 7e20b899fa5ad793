# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Two training phases and held-out writers in the report; the numbers are worked out in perfedavg.py."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bundle.live import Live
from bundle.report import held_out
from bundle.report.gains import histogram
from bundle.report.held_out import MOST_POINTS
from bundle.report.html import to_html
from bundle.report.reading import read_report
from bundle.report.text import to_text
from bundle.report.training import MOST_ROUNDS
from bundle.report.wording import thinned
from bundle.report.writers import Point, Writers
from tests.bundle.conftest import Event, build, job_events, round_event, typed, write_run
from tests.bundle.perfedavg import SUMMARY, personalized, rounds, scored, site, training_round, writers_events


def cells(text: str, header: str, count: int) -> list[list[str]]:
    """The first cell is empty where a line starts with blanks."""
    lines = text.splitlines()
    first = next(index for index, line in enumerate(lines) if re.match(header, line))
    return [re.split(r"\s{2,}", line) for line in lines[first : first + count]]


def without(*kinds: str, **changes: Any) -> list[Event]:
    return [event for event in writers_events(**changes) if event["event"] not in kinds]


def writers_of(events: Sequence[Event]) -> Writers:
    writers = build(list(events)).writers
    assert writers is not None
    return writers


def test_the_curve_has_a_point_a_scored_model_and_ends_with_the_result() -> None:
    """A loss that a site does not report has no mean; the model of round 0 has (3 * 2 + 6) / 4 = 3."""
    assert writers_of(writers_events()).curve == [
        Point("train", 0, 4, 0.125, 0.25, 3.0, 1.0),
        Point("train", 2, 4, 0.375, 0.625, None, None),
        Point("meta_train", 3, 4, 0.5625, 0.6875, 1.5, 1.0),
    ]


def test_the_json_has_the_result_and_the_curve() -> None:
    content = build(writers_events()).to_json()
    expected = {name: value for name, value in personalized().items() if name != "event"}
    found = dict(content["personalization"])
    assert [point["round"] for point in found.pop("curve")] == [0, 2, 3]
    assert found.pop("rounds_to_target") == {"initial": None, "personalized": 2}
    assert found == expected
    assert [(row["task"], row["round"]) for row in content["rounds"]] == [("train", 1), ("train", 2), ("meta_train", 1)]


def test_without_a_target_there_are_no_rounds_to_it() -> None:
    report = build(writers_events(target_accuracy=None))
    assert report.to_json()["personalization"]["rounds_to_target"] is None
    assert "mean accuracy of" not in to_text(report)


def test_other_jobs_have_no_writers_and_their_json_stays() -> None:
    report = build(job_events())
    assert report.writers is None
    assert "task" not in report.to_json()["rounds"][0]


def test_rounds_are_counted_through_both_tasks_and_writers_are_added_up() -> None:
    report = build(writers_events())
    assert (report.tasks, report.num_rounds, report.task_starts()) == (
        ["train", "meta_train"],
        3,
        [(0, "train"), (2, "meta_train")],
    )
    assert [(row.round, row.num_rounds, row.position) for row in report.rounds] == [(1, 2, 1), (2, 2, 2), (1, 1, 3)]
    assert [row.aggregate["train_loss"] for row in report.rounds] == pytest.approx([1.75, 1.0, 0.9])
    assert [row.aggregate["writers"] for row in report.rounds] == [25, 20, 25]
    assert report.key_metric() == "train_loss"


def test_the_tables_of_the_terminal() -> None:
    text = to_text(build(writers_events()))
    assert cells(text, "task +round ", 4) == [
        ["task", "round", "train_loss", "writers", "dropped", "seconds", "up", "down"],
        ["train", "1/2", "1.7500", "25", "0", "2.0", "2.0 kB", "1.0 kB"],
        ["train", "2/2", "1.0000", "20", "2", "2.0", "2.0 kB", "1.0 kB"],
        ["meta_train", "1/1", "0.9000", "25", "0", "2.0", "2.0 kB", "1.0 kB"],
    ]
    losses = ["initial loss", "personalised loss"]
    assert cells(text, "task +rounds ", 4) == [
        ["task", "rounds", "initial", "personalised", "gain (points)", *losses, "writers"],
        ["start", "0", "0.1250", "0.2500", "+12.5", "3.0000", "1.0000", "4"],
        ["train", "2", "0.3750", "0.6250", "+25.0", "-", "-", "4"],
        ["meta_train", "3", "0.5625", "0.6875", "+12.5", "1.5000", "1.0000", "4"],
    ]
    assert cells(text, " +accuracy ", 4) == [
        ["", "accuracy", "+- std", "p10", "p90", "loss", "+- std"],
        ["initial", "0.5625", "0.1250", "0.5000", "0.6750", "1.5000", "0.5774"],
        ["personalised", "0.6875", "0.2394", "0.5000", "0.9250", "1.0000", "0.0000"],
        ["gain (points)", "+12.5", "32.3", "-17.5", "+42.5"],
    ]


def test_the_sentences_of_the_terminal() -> None:
    lines = [line.strip() for line in to_text(build(writers_events())).splitlines()]
    for line in (
        "writers   35 to train on, 4 held out",
        "4 held-out writers, each on its own data: the model of 2 fed_avg and 1 meta_train rounds",
        "gain +12.5 +- 16.1 points (standard error over writers)",
        "harmed by personalising: 25 % (1 of 4 writers)",
        "mean accuracy of 0.625 or more, first seen: initial never, personalised after 2 rounds",
        "held-out writers left out because what they made of the model diverged: 2",
        "updates of writers dropped in training because they were not finite: 2, in 1 round",
        "writers left out for having too few samples: 7 of the data set that each site reads",
    ):
        assert line in lines


def test_writers_left_out_are_told_once() -> None:
    """By the site's reason where it gives reasons, as `skipped_writers` counts the same ones."""
    events = writers_events()
    (initialized,) = (event for event in events if event["event"] == "initialized")
    initialized["left_out"] = {name: {"writers with fewer than 2 samples": 7} for name in ("site-1", "site-2")}
    text = to_text(build(events))
    assert text.count("too few samples") == 0
    assert text.count("writers with fewer than 2 samples: 7") == 1


def test_many_rounds_and_points_are_thinned() -> None:
    facts = {"site-1": site(1, 1.0, 1, evaluated=scored(1, 0.5, 0.5))}
    events = [training_round("train", number, 100, facts) for number in range(1, 101)]
    events += [training_round("meta_train", number, 5, facts) for number in range(1, 6)]
    text = to_text(build(events))
    labels = [row[1] for row in cells(text, "task +round ", 1 + MOST_ROUNDS + 5)[1:]]
    assert labels[:3] == ["1/100", "12/100", "23/100"]
    assert labels[-6:] == ["100/100", "1/5", "2/5", "3/5", "4/5", "5/5"]
    assert f"{100 - MOST_ROUNDS} of 105 rounds are left out here" in text
    assert cells(text, "task +rounds ", 1 + MOST_POINTS)[-1][:2] == ["train", "100"]
    assert f"{101 - MOST_POINTS} of 105 models that were scored are left out here" in text


def test_thinned_keeps_both_ends() -> None:
    assert thinned(range(5), 5) == [0, 1, 2, 3, 4]
    assert thinned(range(101), 3) == [0, 50, 100]


def test_numbering_that_goes_on_in_the_second_task_counts_each_round_once() -> None:
    report = build([training_round("train", n, 2, {}) for n in (1, 2)] + [training_round("meta_train", 3, 4, {})])
    assert ([row.position for row in report.rounds], report.num_rounds) == ([1, 2, 3], 4)


def test_the_second_task_scores_the_last_model_of_the_first() -> None:
    """A closing validation is of the last task; the `best` round of one task is no mark in the table of two."""
    first, second = round_event(1, (0.1, 0.1), (1, 1), num_rounds=1), round_event(1, (0.4, 0.8), (1, 1), num_rounds=1)
    closing = {"event": "validation", "round": 1, "sites": {"site-1": {"val_accuracy": 0.9}}, "samples": {}}
    best = {"event": "best", "round": 1, "metric": "val_accuracy", "value": 0.9}
    report = build([first, second | {"task": "other"}, closing, best])
    assert [row.aggregate["val_accuracy"] for row in report.rounds] == pytest.approx([0.5, 0.9])
    assert [row[0] for row in cells(to_text(report), "round ", 4)] == ["round", "start", "train 1/1", "other 1/1"]


@pytest.mark.parametrize(
    ("task", "num_rounds", "error"),
    [("train", 5, "it ended after train round 2"), ("meta_train", 5, "it ended after meta_train round 1")],
)
def test_each_task_must_have_reached_its_last_round(task: str, num_rounds: int, error: str) -> None:
    events = writers_events()
    assert build(events).status == "completed"
    for event in events:
        if event.get("task") == task:
            event["num_rounds"] = num_rounds
    report = build(events)
    assert (report.status, report.errors) == ("incomplete", [f"the job ended early: {error}"])


def test_a_job_without_meta_training_is_complete() -> None:
    events = [event for event in writers_events(rounds={"fed_avg": 2}) if event.get("task") != "meta_train"]
    report = build(events)
    assert report.status == "completed"
    assert [(p.task, p.round) for p in writers_of(events).curve] == [("train", 0), ("train", 2)]
    assert "the model of 2 fed_avg rounds" in to_text(report)
    to_html(report)


def test_a_site_that_did_not_personalise_is_missing() -> None:
    found = {"site-1": personalized()["sites"]["site-1"]}
    report = build(writers_events(sites=found, failed={"site-2": "<no reply>"}))
    assert (report.status, report.errors) == ("completed without site-2", ["site-2 at personalize: <no reply>"])
    assert "site-2 scored no writer: <no reply>" in to_text(report)
    assert "site-2 scored no writer: &lt;no reply&gt;" in to_html(report)


def test_a_round_without_a_site_says_so() -> None:
    events = writers_events()
    del events[2]["sites"]["site-2"]
    events[2]["failed"] = {"site-2": "norm"}
    report = build(events)
    assert (report.status, report.errors) == ("completed", ["site-2 in train round 1: norm"])
    assert [row[5] for row in cells(to_text(report), "task +round ", 4)] == ["sites", "1/2", "2/2", "2/2"]


def test_a_job_that_is_under_way_shows_its_curve() -> None:
    text = to_text(build(without("personalized", "workflow_finished", "job_ended")))
    assert cells(text, "task +rounds ", 3)[-1][:3] == ["train", "2", "0.3750"]
    assert "harmed" not in text
    assert "writers   35 to train on, 4 held out" in to_text(build(writers_events()[:2]))
    assert "No round was finished" in to_html(build(writers_events()[:2]))


def test_a_site_without_held_out_writers_does_not_count() -> None:
    event = training_round("train", 1, 1, {"a": site(1, 1.0, 1, evaluated=scored(0, 0.0, 0.0)), "b": site(1, 1.0, 1)})
    assert build([event]).writers is None
    event["sites"]["b"]["evaluated"] = scored(2, 0.5, 0.75)
    assert writers_of([event]).curve == [Point("train", 0, 2, 0.5, 0.75)]


def test_the_page_has_the_curve_the_gains_and_the_table() -> None:
    page = to_html(build(writers_events()))
    assert re.findall(r"<h3>(.*?)</h3>", page) == [
        "train_loss by round",
        "Bytes by round",
        "Mean accuracy by rounds of training",
        "What each writer gained",
    ]
    for text in ("harmed (1)", "not harmed (3)", "mean +12.5", "target 0.625", "meta_train", "personalised"):
        assert f">{text}</text>" in page
    assert "<td>personalised</td><td>0.6875</td>" in page
    assert "<td>site-1</td><td>900</td><td>90</td><td>30</td><td>3</td><td>7</td>" in page


@pytest.mark.parametrize(
    ("gains", "labels"),
    [
        ([0.0], ["not harmed (1)", "mean +0.0"]),
        ([-0.5], ["harmed (1)", "mean -50.0"]),
        ([-1.0, 1.0], ["harmed (1)", "not harmed (1)", "mean +0.0"]),
        ([0.3 - 0.1 - 0.2] * 3, ["not harmed (3)", "mean +0.0"]),  # -2.8e-17 is no harm
    ],
)
def test_any_gains_can_be_drawn(gains: list[float], labels: list[str]) -> None:
    assert re.findall(r">((?:not )?harmed.*?|mean.*?)</text>", histogram(gains)) == labels


def test_a_task_name_cannot_become_markup() -> None:
    event = training_round("<script>$x$", 1, 1, {"a": site(1, 1.0, 1, evaluated=scored(1, 0.5, 0.5))})
    assert "<script>" not in to_html(build([*rounds(), event]))


def test_the_model_of_federated_averaging_is_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "server" / "simulate_job", writers_events(), "perfedavg")
    (run / "app_server" / "fed_avg_model.pt").touch()
    path = run / "app_server" / "fed_avg_model.pt"
    assert read_report(tmp_path).models == {"global model of federated averaging": str(path)}


def test_writers_are_followed_live() -> None:
    out = io.StringIO()
    live = Live(out)
    for event in [*without("job_started", "workflow_finished", "job_ended"), personalized(failed={"site-2": "slow"})]:
        live.show(typed(event))
    live.show(typed(personalized(sites={}, summary={})))
    lines = [line.partition(" s  ")[2] for line in out.getvalue().splitlines()]
    gain = "4 held-out writers: accuracy 0.562 -> 0.688 personalised, gain +12.5 +- 16.1 points"
    assert lines == [
        "initial model: first (site-1); data: FEMNIST, 1000 training samples of 35 writers, 4 more held out",
        "4 held-out writers at the start: accuracy 0.125 -> 0.250 personalised (+12.5 points)",
        "train round 1/2  2 sites  25 writers  train_loss 1.750  up 2.0 kB  2.0 s  about 2.0 s of train rounds left",
        "train round 2/2  2 sites  20 writers  train_loss 1.000  up 2.0 kB  2.0 s",
        "4 held-out writers after 2 rounds: accuracy 0.375 -> 0.625 personalised (+25.0 points)",
        "meta_train round 1/1  2 sites  25 writers  train_loss 0.900  up 2.0 kB  2.0 s",
        gain,
        f"{gain}  site-2 FAILED",
        "no held-out writer was scored",
    ]


def test_the_time_that_is_left_is_judged_by_the_task_itself() -> None:
    out = io.StringIO()
    live = Live(out)
    live.show(typed(training_round("train", 1, 1, {}, seconds=100.0)))
    live.show(typed(training_round("meta_train", 1, 3, {})))
    assert (
        out.getvalue()
        .splitlines()[1]
        .endswith("meta_train round 1/3  0 sites  up 2.0 kB  2.0 s  about 4.0 s of meta_train rounds left")
    )


def test_the_summary_is_that_of_the_controller() -> None:
    from controllers.personalize import summarise

    found = summarise(personalized()["sites"])
    assert found.keys() == SUMMARY.keys()
    assert found["gain"] == pytest.approx(SUMMARY["gain"], abs=1e-6)
    for when in ("initial", "personalized"):
        for metric in ("accuracy", "loss"):
            assert found[when][metric] == pytest.approx(SUMMARY[when][metric], abs=1e-6)  # type: ignore[index]


def test_query_samples_of_classes_without_support_are_said() -> None:
    report = build(writers_events())
    assert report.writers is not None
    summary = report.writers.result["summary"]
    assert not any("query samples" in note for note in held_out.notes(report, report.writers))
    summary |= {"unseen_query_samples": 7, "unseen_query_share": 0.5}
    assert any(note.startswith("7 of 14 query samples (50 %)") for note in held_out.notes(report, report.writers))
