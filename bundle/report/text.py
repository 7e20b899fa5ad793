# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A report for the terminal."""

from __future__ import annotations

import textwrap

from bundle.report import held_out, personal, traffic
from bundle.report.model import Metrics, Report, Round, Score, Sites
from bundle.report.training import TITLE, training_note, training_rows
from bundle.report.wording import (
    chosen_by,
    continued_line,
    dataset_line,
    embedded_warning,
    human_bytes,
    human_seconds,
    left_out_lines,
    model_name,
    no_rounds,
    note_lines,
    number,
    status_line,
    table,
)
from custom.errors import LONGEST
from custom.printable import printable_all

WIDTH = 110
MOST_SITE_COLUMNS = 6
MOST_BYTES_ROWS = 24


def to_text(report: Report) -> str:
    """The whole report; sections without content are left out. Nothing in it can control a terminal."""
    report = printable_all(report, LONGEST)
    rounds = _training(report) if report.writers else _rounds(report)
    parts = [_head(report), rounds, _traffic(report), _personal(report), _held_out(report), _cross_site(report)]
    parts += [_models(report), _problems(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(report: Report) -> str:
    rows = [("job", f"{report.job or '?'}  ({report.job_id})"), ("data set", dataset_line(report))]
    if origin := continued_line(report):
        rows.append(("continues", origin))
    if report.site_names:
        rows.append(("sites", ", ".join(report.site_names)))
    if counts := held_out.counts_line(report):
        rows.append(("writers", counts))
    if report.seconds:
        rows.append(("time", f"{human_seconds(report.seconds)} from the first event to the last"))
    rows.append(("status", status_line(report)))
    text = "\n".join(f"{name:<9} {value}" for name, value in rows)
    warning = embedded_warning(report)
    return f"{textwrap.fill('!!! ' + warning, WIDTH)}\n\n{text}" if warning else text


def _rounds(report: Report) -> str:
    if not report.rounds:
        return no_rounds(report)
    first, *others = report.scores()
    return "\n\n".join([_rounds_of(report, first), *(_rounds_of(report, metric, costs=False) for metric in others)])


def _rounds_of(report: Report, metric: str, costs: bool = True) -> str:
    names = sorted({*report.site_names, *(site for row in report.rounds for site in row.sites)})
    few = len(names) <= MOST_SITE_COLUMNS
    header = ["round", "all sites", *(names if few else ("lowest", "highest"))]
    header += ["seconds", "up", "down"] if costs else []
    rows = [header]
    if report.initial:
        rows.append(["start", *_values(report.initial, metric, names, few, {}), *([""] * 3 if costs else [])])
    several, best = len(report.tasks) > 1, report.best_row()
    for row in report.rounds:
        task = f"{row.task} " if several else ""
        label = f"{task}{row.round}/{row.num_rounds}" + (" *" if row is best else "")
        rows.append([label, *_values(row, metric, names, few, row.failed), *(_costs(row) if costs else [])])
    text = f"{metric or 'rounds'} of the global model after each round\n{table(rows)}"
    if not costs:
        return text
    if report.best:
        by = f" ({chosen_by(report)})" if chosen_by(report) else ""
        text += f"\n* best: round {report.best['round']}, {report.best['metric']} {number(report.best['value'])}{by}"
    return f"{text}\n{_total(report)}"


def _total(report: Report) -> str:
    up, down = (sum(getattr(row, f"{way}load_bytes") for row in report.rounds) for way in ("up", "down"))
    return f"  in all: {human_bytes(up)} up, {human_bytes(down)} down (arrays, all sites together)"


def _traffic(report: Report) -> str:
    if not traffic.compared(report):
        return ""
    rows = table(traffic.table_rows(report, MOST_BYTES_ROWS), text_columns=2)
    notes = [traffic.summary(report), *traffic.notes(report, MOST_BYTES_ROWS)]
    return "\n".join([traffic.TITLE, rows, *map(_wrap, notes)])


def _training(report: Report) -> str:
    if not report.rounds:
        return no_rounds(report)
    lines = [TITLE, table(training_rows(report)), *map(_wrap, filter(None, [training_note(report)])), _total(report)]
    return "\n".join(lines)


def _values(score: Score, metric: str, names: list[str], few: bool, failed: dict[str, str]) -> list[str]:
    mean = number(score.aggregate.get(metric))
    if few:
        return [mean, *(_cell(score.sites.get(name, {}), metric, name in failed) for name in names)]
    values = sorted((metrics[metric], name) for name, metrics in score.sites.items() if metric in metrics)
    return (
        [mean, *(f"{number(value)} {name}" for value, name in (values[0], values[-1]))] if values else [mean, "-", "-"]
    )


def _cell(metrics: Metrics, metric: str, failed: bool) -> str:
    return number(metrics.get(metric)) + (" failed" if failed else "")


def _costs(row: Round) -> list[str]:
    return [f"{row.seconds:.1f}", human_bytes(row.upload_bytes), human_bytes(row.download_bytes)]


def _personal(report: Report) -> str:
    if not report.personalization:
        return ""
    lines = [f"personal models: {personal.title(report.personalization)}"]
    if report.personalization["sites"]:
        lines.append(table(personal.table_rows(report.personalization)))
    return "\n".join([*lines, *map(_wrap, personal.notes(report.personalization))])


def _held_out(report: Report) -> str:
    writers = report.writers
    if not writers:
        return ""
    parts = []
    if writers.curve:
        lines = ["held-out writers by rounds of training (mean accuracy)", table(held_out.curve_rows(writers))]
        parts.append("\n".join([*lines, *map(_wrap, filter(None, [held_out.curve_note(writers)]))]))
    summary = writers.result["summary"]
    lines = [held_out.title(writers), table(held_out.table_rows(summary))] if summary else []
    lines += map(_wrap, held_out.notes(report, writers))
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])


def _cross_site(report: Report) -> str:
    if not report.cross_site:
        return ""
    return "\n\n".join(_cross_table(report, metric) for metric in report.cross_scores())


def _cross_table(report: Report, metric: str) -> str:
    names = sorted({site for sites in report.cross_site.values() for site in sites})
    few = len(names) <= MOST_SITE_COLUMNS
    together = {model: report.cross_aggregate(model) for model in report.cross_site}
    header = ["all sites"] if any(together.values()) else []
    rows = [["model", *header, *(names if few else ("mean of sites", "lowest", "highest"))]]
    for model, sites in report.cross_site.items():
        mean = [number(together[model].get(metric))] if header else []
        rows.append([model_name(report, model), *mean, *_cross_cells(sites, metric, names, few)])
    return f"{metric} of each model (row) at each site (column)\n{table(rows)}"


def _cross_cells(sites: Sites, metric: str, names: list[str], few: bool) -> list[str]:
    if few:
        return [number(sites.get(name, {}).get(metric)) for name in names]
    values = [metrics[metric] for metrics in sites.values() if metric in metrics]
    return [number(sum(values) / len(values)), number(min(values)), number(max(values))] if values else ["-"] * 3


def _models(report: Report) -> str:
    rows = [f"  {kind}: {path}" for kind, path in report.models.items()]
    return "models\n" + "\n".join(rows) if rows else ""


def _problems(report: Report) -> str:
    rows = []
    sections = {
        "left out of the data": left_out_lines(report.left_out),
        "how the data were read": note_lines(report),
        "what went wrong (the first cause first)": report.errors,
        "warnings": report.warnings,
    }
    for title, lines in sections.items():
        if lines:
            rows += [title, *(_wrap(line) for line in lines)]
    return "\n".join(rows)


def _wrap(line: str) -> str:
    # Paths stay whole, so that they can be copied.
    return textwrap.fill(
        line, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
