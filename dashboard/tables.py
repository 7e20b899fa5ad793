# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Numbers of a report as rows of text, for the pages and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bundle.report import held_out
from bundle.report.model import Report, Round
from bundle.report.wording import chosen_by, human_bytes, human_seconds, model_name, number, split_names

Rows = list[list[str]]
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would run, were it the beginning of a name


def facts(report: Report) -> list[tuple[str, str, str]]:
    """What a job came to: label, value and a note each."""
    found = []
    if report.writers and (summary := report.writers.result["summary"]):
        before, after = (number(summary[when]["accuracy"]["mean"]) for when in held_out.WORDS)
        note = f"{before} before, {summary['writers']} held-out writers"
        found.append(("Personalised accuracy", after, note))
    if report.best:
        note = ", ".join(filter(None, [report.best["metric"], f"round {report.best['round']}", chosen_by(report)]))
        found.append(("Best", number(report.best["value"]), note))
    continued = f"continues another job after its round {report.continued['round']}" if report.continued else ""
    up, down = (report.total_bytes(name) or 0 for name in ("upload_bytes", "download_bytes"))
    name, _, origin = str((report.dataset or {}).get("dataset", "not known")).partition(" (")
    counts = [f"{split} {sum(s.get(split, 0) for s in report.samples.values())}" for split in split_names(report)]
    return [
        *found,
        ("Rounds", report.done, continued),
        ("Sites", str(len(report.site_names)), ", ".join(report.site_names[:4])),
        ("Time", human_seconds(report.seconds), "first event to last"),
        ("Up", human_bytes(up), "from the sites"),
        ("Down", human_bytes(down), "to the sites"),
        ("Data set", name, "; ".join(filter(None, (origin.removesuffix(")"), ", ".join(counts))))),
    ]


def rounds(report: Report, metric: str) -> tuple[list[str], Rows]:
    """Header and a row a round: a metric of all sites and of each, time and bytes."""
    names = sorted({*report.site_names, *(site for row in report.rounds for site in row.sites)})
    start = report.initial
    rows = []
    if start and metric in start.aggregate:
        values = [number(start.sites.get(name, {}).get(metric)) for name in names]
        rows.append(["start", number(start.aggregate.get(metric)), *values, "", "", ""])
    several, best = len(report.tasks) > 1, report.best_row()
    for row in report.rounds:
        label = f"{row.task} {row.round}" if several else f"{row.round}"
        values = [_site_value(row, name, metric) for name in names]
        costs = [human_seconds(row.seconds), human_bytes(row.upload_bytes), human_bytes(row.download_bytes)]
        rows.append([f"{label} (best)" if row is best else label, number(row.aggregate.get(metric)), *values, *costs])
    return ["round", "all sites", *names, "time", "up", "down"], rows


def test_scores(report: Report) -> tuple[list[str], Rows]:
    """Header and a row a global model: its test metrics over all sites, where sites say how many samples they have."""
    means = {model: report.cross_aggregate(model) for model in report.cross_site if model.startswith("SRV_")}
    shown = [metric for metric in report.cross_scores() if any(metric in mean for mean in means.values())]
    rows = [[model_name(report, model), *(number(mean.get(m)) for m in shown)] for model, mean in means.items() if mean]
    return ["model", *shown], rows if shown else []


def to_csv(report: Report) -> str:
    """A row a round, and a column a metric, of all sites and of each; numbers in full."""
    names = sorted({site for row in report.rounds for site in row.sites})
    metrics = sorted({metric for row in report.rounds for metric in row.aggregate})
    columns = [f"{metric} {place}" for metric in metrics for place in ("all sites", *names)]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["task", "round", "seconds", "upload_bytes", "download_bytes", *map(_as_text, columns)])
    for row in report.rounds:
        places = [row.aggregate, *(row.sites.get(name, {}) for name in names)]
        values = [place.get(metric, "") for metric in metrics for place in places]
        costs = [row.seconds, row.upload_bytes, row.download_bytes]
        writer.writerow([_as_text(row.task), row.round, *costs, *values])
    return out.getvalue()


def final_scores(report: Report, metrics: Sequence[str]) -> list[str]:
    """The last value of each metric of the global model."""
    last = [next((row.aggregate[m] for row in reversed(report.rounds) if m in row.aggregate), None) for m in metrics]
    return [number(value) for value in last]


def _site_value(row: Round, name: str, metric: str) -> str:
    return "failed" if name in row.failed else number(row.sites.get(name, {}).get(metric))


def _as_text(name: str) -> str:
    return f"'{name}" if name.startswith(FORMULA) else name
