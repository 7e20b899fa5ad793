# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Tables and sentences on the writers that no training saw; the same for the terminal and the page."""

from __future__ import annotations

from typing import Any

from bundle.report.model import Report
from bundle.report.wording import number, points, thinned
from bundle.report.writers import WHEN, Point, Writers, accuracy

WORDS = {"initial": "initial", "personalized": "personalised"}
GAIN = "gain (points)"
MOST_POINTS = 12  # of each task


def title(writers: Writers) -> str:
    """What the numbers of `table_rows` are."""
    summary = writers.result["summary"]
    if not summary:
        return "held-out writers"
    behind = " and ".join(f"{count} {name}" for name, count in writers.result["rounds"].items()) or "0"
    return f"{summary['writers']} held-out writers, each on its own data: the model of {behind} rounds"


def table_rows(summary: dict[str, Any]) -> list[list[str]]:
    """A header, the model before and after personalising, and the gain of the pairs in percentage points."""
    rows = [["", "accuracy", "+- std", "p10", "p90", "loss", "+- std"]]
    for when, word in WORDS.items():
        scores, losses = summary[when]["accuracy"], summary[when]["loss"]
        rows.append(
            [word, *(number(scores[name]) for name in ("mean", "std", "p10", "p90"))]
            + [number(losses[name]) for name in ("mean", "std")]
        )
    gain = summary["gain"]
    rows.append(
        [GAIN, points(gain["mean"]), f"{100 * gain['std']:.1f}", points(gain["p10"]), points(gain["p90"]), "", ""]
    )
    return rows


def curve_rows(writers: Writers) -> list[list[str]]:
    """A header and a row a model that was scored; if there are many, only some of them."""
    rows = [["task", "rounds", *WORDS.values(), GAIN, *(f"{word} loss" for word in WORDS.values()), "writers"]]
    return rows + [_curve_row(point) for group in _by_task(writers) for point in thinned(group, MOST_POINTS)]


def _by_task(writers: Writers) -> list[list[Point]]:
    tasks = dict.fromkeys(point.task for point in writers.curve)
    return [[point for point in writers.curve if point.task == task] for task in tasks]


def _curve_row(point: Point) -> list[str]:
    before, after = (accuracy(point, when) for when in WHEN)
    losses = [number(point.initial_loss), number(point.personalized_loss)]
    task = point.task if point.round else "start"
    return [task, str(point.round), number(before), number(after), points(after - before), *losses, str(point.writers)]


def curve_note(writers: Writers) -> str:
    """That points were left out of `curve_rows`; empty if none was."""
    hidden = sum(max(0, len(group) - MOST_POINTS) for group in _by_task(writers))
    return f"{hidden} of {len(writers.curve)} models that were scored are left out here" if hidden else ""


def notes(report: Report, writers: Writers) -> list[str]:
    """Sentences below the tables: how sure the gain is, whom it harmed, and who is missing."""
    found = []
    if summary := writers.result["summary"]:
        gain, count = summary["gain"], summary["writers"]
        found.append(
            f"gain {points(gain['mean'])} +- {100 * gain['standard_error']:.1f} points (standard error over writers)"
        )
        harmed = summary["harmed"]
        found.append(f"harmed by personalising: {100 * harmed:.0f} % ({round(harmed * count)} of {count} writers)")
        if unseen := summary.get("unseen_query_samples"):
            found.append(
                f"{unseen} of {summary['query_samples']} query samples ({100 * summary['unseen_query_share']:.0f} %) "
                "are of classes of which the writer has no support sample: personalising cannot learn them"
            )
        if diverged := summary.get("dropped"):
            found.append(f"held-out writers left out because what they made of the model diverged: {diverged}")
    if writers.target is not None:
        found.append(
            f"mean accuracy of {writers.target:g} or more, first seen: "
            + ", ".join(_reached(writers, when) for when in WORDS)
        )
    if dropped := round(sum(row.aggregate.get("dropped_writers", 0) for row in report.rounds)):
        rounds = sum(row.aggregate.get("dropped_writers", 0) > 0 for row in report.rounds)
        found.append(
            f"updates of writers dropped in training because they were not finite: {dropped}, in {rounds} "
            f"round{'s' * (rounds != 1)}"
        )
    # Of a site that tells what it left out by reason, these are among it.
    told = [counts for site, counts in report.samples.items() if not report.left_out.get(site)]
    if skipped := sorted({counts["skipped_writers"] for counts in told if counts.get("skipped_writers")}):
        # Sites that share a data set all count the same writers, so a sum would be wrong.
        some = f"{skipped[0]} to {skipped[-1]}" if len(skipped) > 1 else str(skipped[0])
        found.append(f"writers left out for having too few samples: {some} of the data set that each site reads")
    return found + [f"{site} scored no writer: {reason}" for site, reason in writers.result["failed"].items()]


def _reached(writers: Writers, when: str) -> str:
    rounds = writers.rounds_to_target(when)
    return f"{WORDS[when]} " + ("never" if rounds is None else f"after {rounds} rounds")


def counts_line(report: Report) -> str:
    """How many writers there are; empty if the sites did not say."""
    training, held_out = (
        sum(counts.get(f"{kind}_writers", 0) for counts in _counts(report)) for kind in ("training", "held_out")
    )
    return f"{training} to train on, {held_out} held out" if training or held_out else ""


def count_names(report: Report) -> list[str]:
    """The kinds of writers that any site has counted."""
    names = ("training_writers", "held_out_writers", "skipped_writers")
    return [name for name in names if any(name in counts for counts in _counts(report))]


def _counts(report: Report) -> list[dict[str, int]]:
    return list(report.samples.values())
