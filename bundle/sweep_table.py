# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The table and files of a sweep: a row a setting, with mean and spread over its seeds."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bundle.report.wording import ALIKE, against_dense, human_bytes, human_seconds, number, table
from bundle.sweep_grid import Point, value_text
from bundle.sweep_results import PERSONAL, PERSONAL_TEST, PERSONALIZED, Result
from custom.events import BYTES
from custom.metrics import lower_is_better

KINDS = ("best", "final")
SAME = 1e-9  # values that are no further apart are equal: sums of floats differ in their last digits


@dataclass(frozen=True)
class Row:
    """One setting: its repeats differ in nothing but seeds.

    Attributes:
        settings: without the seeds.
        repeats: one a combination of seeds; one alone where no seed is swept.
    """

    settings: dict[str, Any]
    repeats: list[Result]

    @property
    def label(self) -> str:
        """The settings as a person would type them."""
        return Point(self.settings).label or "the job as it is"

    @property
    def finished(self) -> list[Result]:
        """The repeats that finished."""
        return [result for result in self.repeats if result.finished]

    @property
    def complete(self) -> bool:
        """Did all repeats finish?"""
        return len(self.finished) == len(self.repeats)

    @property
    def status(self) -> str:
        """Of one repeat its own, of several how many finished."""
        states = list(dict.fromkeys(result.status for result in self.repeats))
        return states[0] if len(states) == 1 else f"{len(self.finished)} of {len(self.repeats)} finished"

    def values(self, metric: str, kind: str = "best") -> list[float]:
        """Of the repeats that finished and have it."""
        return [value for result in self.repeats if (value := result.value(metric, kind)) is not None]

    def value(self, metric: str, kind: str = "best") -> float | None:
        """The mean over the repeats; None if none has it."""
        values = self.values(metric, kind)
        return statistics.fmean(values) if values else None

    def std(self, metric: str, kind: str = "best") -> float | None:
        """The sample standard deviation over the repeats; None of fewer than two."""
        values = self.values(metric, kind)
        return statistics.stdev(values) if len(values) > 1 else None

    def mean_of(self, name: str) -> float | None:
        """The mean over the repeats that finished of a number such as `upload_bytes`; of all, if none finished."""
        values = [getattr(result, name) for result in self.finished or self.repeats]
        return None if None in values else statistics.fmean(values)


def group(results: Sequence[Result], seeds: Sequence[str] = ()) -> list[Row]:
    """The rows, in the order of the results.

    Args:
        results: of the points.
        seeds: the keys of the grid that set a seed.
    """
    rows: dict[str, Row] = {}
    for result in results:
        settings = {key: value for key, value in result.settings.items() if key not in seeds}
        rows.setdefault(Point(settings).name, Row(settings, [])).repeats.append(result)
    return list(rows.values())


def ranked(rows: Sequence[Row], metric: str) -> list[Row]:
    """The best first; of equal ones the one that sent fewer bytes; then those that lack repeats or the metric."""
    sign = 1 if lower_is_better(metric) else -1

    def place(row: Row) -> tuple[bool, bool, bool, float, float]:
        value = row.value(metric)
        sent = row.mean_of("upload_bytes") or 0.0
        return not row.finished, value is None, not row.complete, sign * (value or 0.0), sent

    return sorted(rows, key=place)


def tied(rows: Sequence[Row], metric: str) -> list[Row]:
    """The rows that no other one is better than: one, or several with equal means; empty if none has the metric."""
    first = rows[0].value(metric)
    if first is None:
        return []
    close = [row for row in rows if (value := row.value(metric)) is not None and abs(value - first) <= SAME]
    return [row for row in close if row.complete == rows[0].complete]


def table_rows(rows: Sequence[Row], metric: str) -> list[list[str]]:
    """A header and a row a setting, for people; the number of text columns is that of the settings and one."""
    keys = list(rows[0].settings)
    several = _several(rows)
    columns = [column for way in ("up", "down") for column in _sent(rows, way)]
    tested = [PERSONAL_TEST] if metric == PERSONAL and any(row.value(PERSONAL_TEST) is not None for row in rows) else []
    head = [*keys, "status", *(["seeds"] if several else []), f"best {metric}".strip(), "final", *tested]
    lines = [[*head, *(column[0] for column in columns), "time"]]
    for index, row in enumerate(rows, start=1):
        shown = [*((metric, kind) for kind in KINDS), *((name, "final") for name in tested)]
        values = [_with_spread(row, name, kind) for name, kind in shown]
        counts = [f"{len(row.finished)}/{len(row.repeats)}"] if several else []
        time = human_seconds(seconds) if (seconds := row.mean_of("seconds")) else "-"
        settings = [value_text(row.settings[key]) for key in keys]
        lines.append([*settings, row.status, *counts, *values, *(column[index] for column in columns), time])
    return lines


def _several(rows: Sequence[Row]) -> bool:
    return any(len(row.repeats) > 1 for row in rows)


def _with_spread(row: Row, metric: str, kind: str) -> str:
    std = row.std(metric, kind)
    return number(row.value(metric, kind)) + ("" if std is None else f" +- {std:.4f}")


def _sent(rows: Sequence[Row], way: str) -> list[list[str]]:
    """A column of bytes `up` or `down`; and one that compares them with dense exchange, if any differ."""
    counts = [
        tuple(_whole(row.mean_of(name)) for name in (f"{way}load_bytes", f"dense_{way}load_bytes")) for row in rows
    ]
    ran = [bool(row.mean_of("upload_bytes") or row.mean_of("download_bytes")) for row in rows]
    sent = [human_bytes(count or 0) if did else "-" for (count, _), did in zip(counts, ran, strict=True)]
    beside = [against_dense(*count) if did else "" for count, did in zip(counts, ran, strict=True)]
    differs = any(text not in ("", ALIKE) for text in beside)
    return [[way, *sent], *([["vs dense", *(text or "-" for text in beside)]] if differs else [])]


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def to_text(rows: Sequence[Row], metric: str) -> str:
    """The table, the best setting, and why others failed."""
    text = table(table_rows(rows, metric), len(rows[0].settings) + 1) + "\n"
    if line := best_line(rows, metric):
        text += f"\n{line}\n"
    return text + "".join(f"\n{note}\n" for note in notes(rows, metric))


def notes(rows: Sequence[Row], metric: str) -> list[str]:
    """What the numbers are worth, why points failed, and what else a reader must know."""
    results = [result for row in rows for result in row.repeats]
    found = list(dict.fromkeys(result.warning for result in results if result.warning))
    for condition, note in ((_several(rows), _error_note), (True, _metric_note)):
        found += [text for text in [note(rows, metric)] if condition and text]
    partial = [row for row in rows if row.finished and not row.complete]
    found += [
        f"{row.label}: {len(row.finished)} of {len(row.repeats)} repeats finished; ranked below those with all"
        for row in partial
    ]
    return found + [f"{result.status}: {result.point.label}: {result.error}" for result in results if result.error]


def _error_note(rows: Sequence[Row], metric: str) -> str:
    """Is the difference from the next row larger than its standard error?"""
    others = [row for row in rows if row not in tied(rows, metric) and row.value(metric) is not None]
    if not others or rows[0].value(metric) is None:
        return ""
    first, second = rows[0], others[0]
    spreads = [(row.std(metric), len(row.values(metric))) for row in (first, second)]
    if any(std is None for std, _ in spreads):
        return ""
    error = math.sqrt(sum((std or 0.0) ** 2 / count for std, count in spreads))
    difference = abs((first.value(metric) or 0.0) - (second.value(metric) or 0.0))
    if difference > 2 * error:
        return ""
    return (
        f"the difference from the next, {difference:.4f}, is less than two of its standard errors ({error:.4f}): more "
        "seeds would have to tell them apart"
    )


def _metric_note(rows: Sequence[Row], metric: str) -> str:
    if metric == PERSONALIZED:
        return f"{PERSONALIZED} is that of the held-out writers: a setting chosen by it has to be tested on others"
    if metric and lower_is_better(metric) is None:
        return f"it is not known whether a high or a low {metric} is good; high is taken for good"
    return ""


def best_line(rows: Sequence[Row], metric: str) -> str:
    """Names the best setting, or those that are equal; empty if none has the metric."""
    best = tied(rows, metric)
    if not best:
        return ""
    value = _with_spread(best[0], metric, "best")
    if len(best) == 1:
        of = f" over {len(best[0].finished)} seeds" if len(best[0].repeats) > 1 else ""
        return f"best: {best[0].label}  ({metric} {value}{of}, {human_bytes(_upload(best[0]))} up)"
    fewest = min(map(_upload, best))
    cheap = [row for row in best if _upload(row) == fewest]
    sent = f"; {cheap[0].label} sent the fewest bytes" if len(cheap) == 1 else ""
    return f"tied: {' and '.join(row.label for row in best)}  ({metric} {number(best[0].value(metric))}{sent})"


def _upload(row: Row) -> float:
    return row.mean_of("upload_bytes") or 0.0


def to_csv(rows: Sequence[Row], metric: str) -> str:
    """A line a setting, numbers in full; a metric that is not known is an empty cell."""
    keys, several = list(rows[0].settings), _several(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f"{kind}_{metric}" if metric else kind for kind in KINDS]
    spread = [f"{name}_std" for name in names] if several else []
    counts = ["seeds_finished", "seeds"] if several else []
    tested = [PERSONAL_TEST] if metric == PERSONAL else []
    writer.writerow(
        [*keys, "status", *counts, *names, *spread, *tested, *BYTES, "seconds", "dataset", "folder", "error"]
    )
    for row in rows:
        first = row.repeats[0]
        values = [row.value(metric, kind) for kind in KINDS]
        stds = [row.std(metric, kind) for kind in KINDS] if several else []
        numbers = [len(row.finished), len(row.repeats)] if several else []
        sums = [*map(_csv_number(row), BYTES), round(row.mean_of("seconds") or 0.0, 3)]
        settings = [value_text(row.settings[key]) for key in keys]
        folders = " ".join(result.point.name for result in row.repeats)
        error = next((result.error for result in row.repeats if result.error), "")
        test = [row.value(name, "final") for name in tested]
        writer.writerow([*settings, row.status, *numbers, *values, *stds, *test, *sums, first.dataset, folders, error])
    return out.getvalue()


def _csv_number(row: Row) -> Callable[[str], float | None]:
    """A mean as it is written: a whole number of bytes where it is one."""

    def read(name: str) -> float | None:
        value = row.mean_of(name)
        return round(value) if value is not None and value.is_integer() else value

    return read


def to_json(rows: Sequence[Row], metric: str) -> dict[str, Any]:
    """The part of results.json about the points.

    `best` is the folder of the best point, or its settings as a folder's name where it has several seeds; null if
    there is none, or a tie. `rows` are the settings, best first; `points` the runs.
    """
    best = tied(rows, metric)
    name = None
    if len(best) == 1:
        name = best[0].repeats[0].point.name if len(best[0].repeats) == 1 else Point(best[0].settings).name
    points = [
        asdict(result) | {"folder": result.point.name} | {kind: result.value(metric, kind) for kind in KINDS}
        for row in rows
        for result in row.repeats
    ]
    return {
        "metric": metric,
        "lower_is_better": bool(lower_is_better(metric)),
        "best": name,
        "tied": [row.settings for row in best] if len(best) > 1 else [],
        "rows": [_json_row(row, metric) for row in rows],
        "points": points,
    }


def _json_row(row: Row, metric: str) -> dict[str, Any]:
    values = {name: value for kind in KINDS for name, value in _json_values(row, metric, kind).items()}
    return {
        "settings": row.settings,
        "status": row.status,
        "seeds": len(row.repeats),
        "seeds_finished": len(row.finished),
        **values,
        PERSONAL_TEST: row.value(PERSONAL_TEST, "final"),
        "upload_bytes": row.mean_of("upload_bytes"),
        "folders": [result.point.name for result in row.repeats],
    }


def _json_values(row: Row, metric: str, kind: str) -> dict[str, float | None]:
    return {kind: row.value(metric, kind), f"{kind}_std": row.std(metric, kind)}
