# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The rounds of a job that trains on writers: many, of one task after another, and without a score of each model."""

from __future__ import annotations

from bundle.report.model import Report, Round
from bundle.report.wording import human_bytes, number, thinned

TITLE = "training rounds (train_loss: mean over the sites, weighted by samples)"
MOST_ROUNDS = 10  # of each task


def training_rows(report: Report) -> list[list[str]]:
    """A header and a row a round; of a task with many rounds the first, the last and some between."""
    shown = [row for task in report.tasks for row in thinned(_rounds(report, task), MOST_ROUNDS)]
    dropped = any(row.aggregate.get("dropped_writers") for row in report.rounds)
    missing = any(len(_trained(row)) < len(report.site_names) for row in report.rounds)
    header = ["task", "round", "train_loss", "writers", *(["dropped"] if dropped else [])]
    rows = [[*header, *(["sites"] if missing else []), "seconds", "up", "down"]]
    for row in shown:
        cells = [row.task, f"{row.round}/{row.num_rounds}", number(row.aggregate.get("train_loss")), _count(row)]
        cells += [_count(row, "dropped_writers")] if dropped else []
        cells += [f"{len(_trained(row))}/{len(report.site_names)}"] if missing else []
        rows.append([*cells, f"{row.seconds:.1f}", human_bytes(row.upload_bytes), human_bytes(row.download_bytes)])
    return rows


def training_note(report: Report) -> str:
    """How many rounds `training_rows` leaves out; empty if none."""
    hidden = sum(max(0, len(_rounds(report, task)) - MOST_ROUNDS) for task in report.tasks)
    return f"{hidden} of {len(report.rounds)} rounds are left out here" if hidden else ""


def _rounds(report: Report, task: str) -> list[Round]:
    return [row for row in report.rounds if row.task == task]


def _trained(row: Round) -> list[str]:
    return [site for site, metrics in row.sites.items() if metrics and site not in row.failed]


def _count(row: Round, name: str = "writers") -> str:
    value = row.aggregate.get(name)
    return "-" if value is None else f"{value:.0f}"
