# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Numbers and names as people read them, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from bundle.report.model import Report
from custom.data.remarks import left_out_line
from custom.printable import decimals

T = TypeVar("T")
ROUNDED_TO_100 = 99.95  # what would be written as 100.0
ALIKE, ALIKE_WITHIN = "the same", 0.01
FINAL, BEST = "SRV_FL_global_model.pt", "SRV_best_FL_global_model.pt"
CROSS_NAMES = {FINAL: "global, last round", BEST: "global, best"}


def human_bytes(count: float) -> str:
    """`1.3 MB`: decimal units, three digits at most."""
    for unit in ("B", "kB", "MB", "GB"):
        digits = 0 if unit == "B" or abs(count) >= ROUNDED_TO_100 else 1
        if abs(round(count, digits)) < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.{digits}f} {unit}"


def against_dense(sent: int | None, dense: int | None) -> str:
    """`79.3x less`, `1.5x as much`, or `the same`, which 1 % does not change; empty if one of them is not known."""
    if sent is None or dense is None or (sent and not dense):
        return ""
    if abs(sent - dense) <= ALIKE_WITHIN * dense:
        return ALIKE
    if not sent:
        return "100 % less"
    times = max(sent, dense) / min(sent, dense)
    return f"{times:.{2 if times < 1.1 else 1}f}x {'less' if sent < dense else 'as much'}"


def human_seconds(seconds: float) -> str:
    """`3.1 s`, `2 min 5 s` or `1 h 3 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def number(value: float | None) -> str:
    """Four decimals, or a dash where there is no value."""
    return "-" if value is None else decimals(value, 4)


def chosen_by(report: Report) -> str:
    """By what other number than the one in the table the best model was chosen; empty if by none."""
    chosen = (report.best or {}).get("chosen_by")
    return f"chosen by the {chosen['rule']}, {number(chosen['value'])}" if chosen else ""


def points(change: float) -> str:
    """A difference of two shares in signed percentage points: `+5.8`."""
    return f"{round(100 * change, 1) + 0.0:+.1f}"  # + 0.0: never -0.0


def model_name(report: Report, name: str) -> str:
    """FLARE's name of a model in the cross-site matrix, in words."""
    if name == FINAL and BEST not in report.cross_site and report.rounds and report.best_row() is report.rounds[-1]:
        return f"{CROSS_NAMES[FINAL]} (also the best)"
    own = "personal" if report.personalization else "its own"
    return CROSS_NAMES.get(name, f"{name}, {own}" if not name.startswith("SRV_") else name.removeprefix("SRV_"))


def dataset_line(report: Report) -> str:
    """The data set and how much of it each site has."""
    if not report.dataset:
        return "not known"
    totals = [f"{split} {sum(s.get(split, 0) for s in report.samples.values())}" for split in split_names(report)]
    return f"{report.dataset.get('dataset', '?')}" + (f" ({', '.join(totals)} samples in all)" if totals else "")


def left_out_lines(left_out: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What sites left out of their data, by site and reason; sites with the same counts share a line."""
    return _by_sites({site: [left_out_line(counts)] for site, counts in left_out.items() if counts})


def note_lines(report: Report) -> list[str]:
    """How the sites read their data; sites with the same note share a line."""
    return _by_sites(report.data_notes)


def _by_sites(texts: Mapping[str, Sequence[str]]) -> list[str]:
    sites: dict[str, list[str]] = {}
    for site, lines in sorted(texts.items()):
        for line in lines:
            sites.setdefault(line, []).append(site)
    return [f"{', '.join(names)}: {line}" for line, names in sites.items()]


def split_names(report: Report) -> list[str]:
    """The splits that any site has samples of, in the order they are used."""
    return [split for split in ("train", "validation", "test") if any(split in s for s in report.samples.values())]


def embedded_warning(report: Report) -> str:
    """What to say, loudly, when data set or encoder are only the embedded ones; else empty."""
    name = (report.dataset or {}).get("dataset", "?")
    warnings = []
    if report.embedded:
        what = f"these are results on {name}, a small set for trying things out."
        warnings.append(f"EMBEDDED DATA SET: {what}{_asked(report, 'dataset')}")
    if report.encoder_embedded:
        what = "these are results of a small BERT for trying things out, not pretrained."
        warnings.append(f"EMBEDDED ENCODER: {what}{_asked(report, 'model_name_or_path')}")
    return " ".join(warnings)


def _asked(report: Report, argument: str) -> str:
    if report.asked_for_embedded is None:
        return ""
    if argument in report.asked_for_embedded:
        return f" The job asked for it ({argument})."
    return " If the job asked for another one, that was not found."


def thinned(items: Sequence[T], most: int) -> list[T]:
    """At most `most` (2 or more) of the items: the first, the last, and evenly spaced ones between."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def status_line(report: Report) -> str:
    """The status, and what it means where the word alone does not say."""
    if report.status == "aborted":
        return "aborted (by a user; `bundle resume` goes on after the last completed round)"
    if report.status == "not recorded":
        return "not recorded (the job does not say what it does; what FLARE's log says is below)"
    if report.status != "incomplete":
        return report.status
    if report.errors:
        return "incomplete (what is missing or went wrong is below)"
    return "incomplete (no end was recorded: it is still running, or it was killed)"


def continued_line(report: Report) -> str:
    """Which job it continues, and from where; empty if it continues none."""
    return origin(report.continued) if report.continued else ""


def origin(continued: Mapping[str, Any]) -> str:
    """The same, of the event `continued`."""
    return f"job {continued.get('job_id')} after round {continued.get('round')} of {continued.get('workflow')}"


def no_rounds(report: Report) -> str:
    """What to say in the place of a table of rounds."""
    if report.status == "not recorded":
        return "rounds are not recorded"
    return "all rounds are in the job that this one continues" if report.continued else "no round was finished"


def table(rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Aligned columns, two spaces between; the first `text_columns` to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index < text_columns else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
