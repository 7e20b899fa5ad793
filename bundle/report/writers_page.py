# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The page's sections on a job that trains on writers."""

from __future__ import annotations

from html import escape

from bundle.report import gains, held_out
from bundle.report.elements import cards, paragraph, table
from bundle.report.model import Report
from bundle.report.training import training_note, training_rows
from bundle.report.wording import no_rounds


def training_section(report: Report) -> str:
    """The rounds."""
    if not report.rounds:
        return paragraph(f"{no_rounds(report).capitalize()}.")
    header, *rows = training_rows(report)
    parts = ["<h2>Training rounds</h2>", table(header, [("", row) for row in rows]), paragraph(training_note(report))]
    return "\n".join(parts)


def held_out_section(report: Report) -> str:
    """The writers that no training saw: what personalising came to, the curve, and what each gained."""
    writers = report.writers
    if not writers:
        return ""
    parts, charts = [f"<h2>{escape(held_out.title(writers).capitalize())}</h2>"], []
    if summary := writers.result["summary"]:
        header, *rows = held_out.table_rows(summary)
        parts.append(table(header, [("total" if row[0] == held_out.GAIN else "", row) for row in rows]))
    parts += map(paragraph, held_out.notes(report, writers))
    if writers.curve:
        charts.append(("Mean accuracy by rounds of training", gains.curve(writers, report.task_starts())))
    if every := writers.gains():
        charts.append(("What each writer gained", gains.histogram(every)))
    if charts:
        parts.append(cards(charts))
    if writers.curve:
        header, *rows = held_out.curve_rows(writers)
        parts.append("<h2>Held-out writers by rounds of training</h2>")
        parts += [table(header, [("", row) for row in rows]), paragraph(held_out.curve_note(writers))]
    return "\n".join(parts)
