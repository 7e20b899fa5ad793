# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from bundle.report import held_out, personal, traffic
from bundle.report.before_after import before_after
from bundle.report.charts import charts
from bundle.report.elements import cards, paragraph, table
from bundle.report.model import Report, Round, Score
from bundle.report.wording import (
    chosen_by,
    continued_line,
    embedded_warning,
    human_bytes,
    human_seconds,
    left_out_lines,
    model_name,
    no_rounds,
    note_lines,
    number,
    split_names,
    status_line,
)
from bundle.report.writers_page import held_out_section, training_section
from custom.errors import LONGEST
from custom.printable import printable_all

MOST_BYTES_ROWS = 240


def to_html(report: Report) -> str:
    """The page. All names and reasons are printable and escaped: they come from the sites."""
    report = printable_all(report, LONGEST)
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    title = escape(f"{report.job or 'job'}: {report.status}")
    sections = [_header(report), _notices(report), _facts(report), _charts(report)]
    sections += [
        training_section(report) if report.writers else _rounds(report),
        _personal(report),
        held_out_section(report),
    ]
    sections += [_cross_site(report), _traffic(report), _samples(report), _models(report), _footer(report)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, sections))
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(report: Report) -> str:
    kind = report.status if report.status in ("completed", "failed") else "other"
    badge = f'<span class="badge {kind}">{escape(report.status)}</span>'
    return f"<header><h1>{escape(report.job or 'job')}</h1>{badge}</header>"


def _notices(report: Report) -> str:
    notices = []
    if warning := embedded_warning(report):
        notices.append(f'<div class="notice"><p><strong>{escape(warning)}</strong></p></div>')
    if origin := continued_line(report):
        notices.append(f'<div class="notice"><p>Continues {escape(origin)}.</p></div>')
    if status_line(report) != report.status:
        notices.append(f'<div class="notice"><p>{escape(status_line(report))}</p></div>')
    sections = (
        ("bad", "What went wrong", report.errors),
        ("", "Warnings", report.warnings),
        ("", "Left out of the data", left_out_lines(report.left_out)),
    )
    for kind, title, lines in sections:
        if lines:
            text = "".join(f"<p>{escape(line)}</p>" for line in lines)
            notices.append(f'<div class="notice {kind}"><strong>{title}</strong>{text}</div>')
    return "\n".join(notices)


def _facts(report: Report) -> str:
    by_task = [f"{sum(row.task == task for row in report.rounds)} {task}" for task in report.tasks]
    facts = [
        ("Rounds", report.done, ", ".join(by_task) if len(by_task) > 1 else ""),
        ("Sites", str(len(report.site_names)), ""),
    ]
    if report.writers and (summary := report.writers.result["summary"]):
        before, after = (number(summary[when]["accuracy"]["mean"]) for when in held_out.WORDS)
        facts.insert(0, ("Personalised accuracy", after, f"{before} before, {summary['writers']} held-out writers"))
    if report.best:
        note = ", ".join(filter(None, [f"round {report.best['round']}", chosen_by(report)]))
        facts.insert(0, (f"Best {report.best['metric']}", number(report.best["value"]), note))
    data_set, _, note = str((report.dataset or {}).get("dataset", "not known")).partition(" (")
    facts.append(("Data set", data_set, note.removesuffix(")")))
    facts.append(("Time", human_seconds(report.seconds), "first event to last"))
    up, down = (sum(getattr(row, f"{way}load_bytes") for row in report.rounds) for way in ("up", "down"))
    dense = f"; {human_bytes(traffic.dense_bytes(report))} in dense exchange" if traffic.compared(report) else ""
    facts.append(("Sent", human_bytes(up + down), f"{human_bytes(up)} up, {human_bytes(down)} down{dense}"))
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}<small>{escape(note)}</small></dd></div>"
        for name, value, note in facts
    )
    return f'<dl class="facts">{cells}</dl>'


def _charts(report: Report) -> str:
    drawn = charts(report)
    return f"<h2>Curves</h2>\n{cards(drawn)}" if drawn else ""


def _rounds(report: Report) -> str:
    if not report.rounds:
        return f"<p>{no_rounds(report).capitalize()}.</p>"
    first, *others = report.scores()
    return "\n".join([_rounds_of(report, first), *(_rounds_of(report, metric, costs=False) for metric in others)])


def _rounds_of(report: Report, metric: str, costs: bool = True) -> str:
    names = sorted({*report.site_names, *(site for row in report.rounds for site in row.sites)})
    rows = []
    if report.initial:
        rows.append(("", ["start", *_values(report.initial, metric, names), *([""] * 3 if costs else [])]))
    several, best = len(report.tasks) > 1, report.best_row()
    for row in report.rounds:
        label = f"{row.task} {row.round}" if several else str(row.round)
        cells = [label, *_values(row, metric, names)]
        if costs:
            cells += [f"{row.seconds:.1f}", human_bytes(row.upload_bytes), human_bytes(row.download_bytes)]
        rows.append(("best" if row is best else "", cells))
    header = ["round", "all sites", *names, *(["seconds", "up", "down"] if costs else [])]
    return f"<h2>{escape(metric or 'Rounds')} of the global model after each round</h2>\n{table(header, rows)}"


def _traffic(report: Report) -> str:
    if not traffic.compared(report):
        return ""
    header, *rows = traffic.table_rows(report, MOST_BYTES_ROWS)
    parts = [f"<h2>{escape(traffic.TITLE.capitalize())}</h2>", paragraph(traffic.summary(report))]
    parts.append(table(header, [("total" if row[1] == traffic.ALL_SITES else "", row) for row in rows], "bytes"))
    return "\n".join([*parts, *map(paragraph, traffic.notes(report, MOST_BYTES_ROWS))])


def _values(score: Score, metric: str, names: Sequence[str]) -> list[str]:
    failed = score.failed if isinstance(score, Round) else {}
    cells = [number(score.aggregate.get(metric))]
    return cells + [number(score.sites.get(n, {}).get(metric)) + (" failed" if n in failed else "") for n in names]


def _personal(report: Report) -> str:
    if not report.personalization:
        return ""
    parts = ["<h2>Personal models</h2>", f"<p>{escape(personal.title(report.personalization))}</p>"]
    if report.personalization["sites"]:
        header, *rows = personal.table_rows(report.personalization)
        parts.append(f'<div class="card">{before_after(report.personalization)}</div>')
        parts.append(table(header, [("total" if row[0] == personal.ALL_SITES else "", row) for row in rows]))
    return "\n".join([*parts, *map(paragraph, personal.notes(report.personalization))])


def _cross_site(report: Report) -> str:
    if not report.cross_site:
        return ""
    return "\n".join(_cross_table(report, metric) for metric in report.cross_scores())


def _cross_table(report: Report, metric: str) -> str:
    names = sorted({site for sites in report.cross_site.values() for site in sites})
    together = {model: report.cross_aggregate(model) for model in report.cross_site}
    header = ["all sites"] if any(together.values()) else []
    rows = []
    for model, sites in report.cross_site.items():
        mean = [number(together[model].get(metric))] if header else []
        values = (number(sites.get(name, {}).get(metric)) for name in names)
        rows.append(("", [model_name(report, model), *mean, *values]))
    return f"<h2>{escape(metric)} of each model at each site</h2>\n{table(['model', *header, *names], rows)}"


def _samples(report: Report) -> str:
    splits = [*split_names(report), *held_out.count_names(report)]
    rows = [("", [site, *(str(sizes.get(split, "-")) for split in splits)]) for site, sizes in report.samples.items()]
    notes = "".join(paragraph(f"{line}.") for line in note_lines(report))
    header = ["site", *(split.replace("_", " ") for split in splits)]
    return f"<h2>Samples</h2>\n{table(header, rows)}{notes}" if rows else ""


def _models(report: Report) -> str:
    rows = [("", [kind, path]) for kind, path in report.models.items()]
    return f"<h2>Models</h2>\n{table([], rows, 'paths')}" if rows else ""


def _footer(report: Report) -> str:
    return f"<footer>job {escape(report.job_id)}, read from <code>{escape(report.folder)}</code></footer>"
