# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What came out of each point of a sweep, and the table and files that show it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bundle.report.model import BYTES, Report
from bundle.report.wording import ALIKE, against_dense, embedded_warning, human_bytes, human_seconds, number, table
from bundle.sweep_grid import Point, value_text
from custom.errors import BundleError
from custom.metrics import weighted_mean
from custom.progress import write_atomically

POINT_FILE = "point.json"
NOT_RUN = "not run"
PERSONALIZED = "personalized_accuracy"
TEST_MODELS = {"final": "SRV_FL_global_model.pt", "best": "SRV_best_FL_global_model.pt"}
Values = dict[str, float]


@dataclass
class Result:
    """One row.

    Attributes:
        settings: of the point.
        job_sha256: of its exported job: tells whether a finished point is still the one that is asked for.
        status: as in a report, or `not run`.
        error: the first cause of a failure, else empty.
        metrics: by name; `best` of all rounds and `final`, as far as they are known and finite.
        key_metric: the one that matters most in this job.
        upload_bytes: sent by all sites in all rounds.
        download_bytes: sent to them.
        seconds: from the first event to the last.
        dataset: what the sites trained on.
        warning: what to say where that is only the embedded one.
        dense_upload_bytes, dense_download_bytes: what dense exchange would have cost; None if it is not known.
    """

    settings: dict[str, Any]
    job_sha256: str = ""
    status: str = NOT_RUN
    error: str = ""
    metrics: dict[str, Values] = field(default_factory=dict)
    key_metric: str = ""
    upload_bytes: int = 0
    download_bytes: int = 0
    seconds: float = 0.0
    dataset: str = ""
    warning: str = ""
    dense_upload_bytes: int | None = None
    dense_download_bytes: int | None = None

    @property
    def finished(self) -> bool:
        """Did the job really end, by evidence?"""
        return self.status.startswith("completed")

    @property
    def point(self) -> Point:
        """Its place in the grid."""
        return Point(self.settings)

    def value(self, metric: str, kind: str = "best") -> float | None:
        """None for a point that did not finish: half of its rounds compare with nothing."""
        return self.metrics.get(metric, {}).get(kind) if self.finished else None

    def fill(self, report: Report) -> None:
        """Takes over what the report says."""
        self.status, self.error = report.status, " ".join(report.errors[0].split()) if report.errors else ""
        self.metrics = _metrics(report)
        self.key_metric = PERSONALIZED if PERSONALIZED in self.metrics else report.key_metric()
        for name in BYTES:
            setattr(self, name, report.total_bytes(name))
        self.seconds = report.seconds
        self.dataset, self.warning = str((report.dataset or {}).get("dataset", "")), embedded_warning(report)

    def save(self, folder: Path) -> None:
        """Writes point.json."""
        write_atomically(folder / POINT_FILE, json.dumps(asdict(self), indent=2) + "\n")


def load(folder: Path) -> Result | None:
    """What `save` wrote, or None if there is nothing of the kind."""
    try:
        return Result(**json.loads((folder / POINT_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _metrics(report: Report) -> dict[str, Values]:
    found: dict[str, Values] = {}
    for name in report.metrics():
        values = [row.aggregate[name] for row in report.rounds if name in row.aggregate]
        chosen = report.best or {}
        best = [float(chosen["value"])] if chosen.get("metric") == name and chosen.get("value") is not None else values
        last = [row.aggregate[name] for row in report.rounds[-1:] if name in row.aggregate]
        found[name] = _best_and_final(name, best, last)
    for name in sorted({name for sites in report.cross_site.values() for row in sites.values() for name in row}):
        weights = {site: float(sizes.get("test", 0)) for site, sizes in report.samples.items()}
        means = {k: weighted_mean(report.cross_site.get(model, {}), weights) for k, model in TEST_MODELS.items()}
        best, final = ([means[kind][name]] if name in means[kind] else [] for kind in ("best", "final"))
        found.setdefault(name, _best_and_final(name, best or final, final))
    for name in ("initial_accuracy", PERSONALIZED) if report.writers else ():
        last = [getattr(point, name) for point in report.writers.curve[-1:]] if report.writers else []
        found[name] = _best_and_final(name, last, last)  # no earlier model is kept
    personal = (report.personalization or {}).get("summary", {}).get("personal", {}).get("mean")
    if isinstance(personal, int | float):
        found["personal_test_accuracy"] = _best_and_final("", [personal], [personal])
    return {name: values for name, values in found.items() if values}


def _best_and_final(name: str, values: Iterable[float], last: Sequence[float]) -> Values:
    known = [float(value) for value in values if math.isfinite(value)]
    found = {"best": (min if lower_is_better(name) else max)(known)} if known else {}
    if last and math.isfinite(last[-1]):
        found["final"] = float(last[-1])
    return found


def lower_is_better(metric: str) -> bool:
    """Of a loss or an error."""
    return "loss" in metric or "error" in metric


def choose_metric(results: Sequence[Result], asked: str) -> str:
    """The metric to compare by: the one asked for, else the key metric of the first point that has one.

    Raises:
        BundleError: points have finished, and none of them has the metric that was asked for.
    """
    finished = [result for result in results if result.finished]
    names = sorted({name for result in finished for name in result.metrics})
    if asked and finished and asked not in names:
        raise BundleError(
            "the job has no such metric",
            code="metric-unknown",
            key=f"--metric {asked}",
            remedy=f"it has {', '.join(names)}",
        )
    return asked or next((result.key_metric for result in finished if result.key_metric), "")


def ranked(results: Sequence[Result], metric: str) -> list[Result]:
    """The best first; of equal ones the one that sent fewer bytes; then those without the metric."""
    sign = 1 if lower_is_better(metric) else -1

    def place(result: Result) -> tuple[bool, bool, float, int]:
        value = result.value(metric)
        return not result.finished, value is None, sign * (value or 0.0), result.upload_bytes

    return sorted(results, key=place)


def rows(results: Sequence[Result], metric: str) -> list[list[str]]:
    """A header and a row a point, for people; the number of text columns is that of the settings and one."""
    keys = list(results[0].settings)
    columns = [column for way in ("up", "down") for column in _sent(results, way)]
    lines = [[*keys, "status", f"best {metric}".strip(), "final", *(column[0] for column in columns), "time"]]
    for index, result in enumerate(results, start=1):
        values = [number(result.value(metric, kind)) for kind in ("best", "final")]
        sent = [column[index] for column in columns]
        time = human_seconds(result.seconds) if result.seconds else "-"
        lines.append([*(value_text(result.settings[key]) for key in keys), result.status, *values, *sent, time])
    return lines


def _sent(results: Sequence[Result], way: str) -> list[list[str]]:
    """A column of bytes `up` or `down`; and one that compares them with dense exchange, if any differ."""
    names = f"{way}load_bytes", f"dense_{way}load_bytes"
    counts = [tuple(getattr(result, name) for name in names) for result in results]
    ran = [result.upload_bytes or result.download_bytes for result in results]
    sent = [human_bytes(count) if did else "-" for (count, _), did in zip(counts, ran, strict=True)]
    beside = [against_dense(*count) if did else "" for count, did in zip(counts, ran, strict=True)]
    differs = any(text not in ("", ALIKE) for text in beside)
    return [[way, *sent], *([["vs dense", *(text or "-" for text in beside)]] if differs else [])]


def to_text(results: Sequence[Result], metric: str) -> str:
    """The table, the best point, and why the others failed."""
    text = table(rows(results, metric), len(results[0].settings) + 1) + "\n"
    if line := best_line(results, metric):
        text += f"\n{line}\n"
    return text + "".join(f"\n{note}\n" for note in notes(results))


def notes(results: Sequence[Result]) -> list[str]:
    """Why points failed, and what else a reader must know."""
    failures = [f"{result.status}: {result.point.label}: {result.error}" for result in results if result.error]
    return [*dict.fromkeys(result.warning for result in results if result.warning), *failures]


def best_line(results: Sequence[Result], metric: str) -> str:
    """Names the best point; empty if none has the metric."""
    value = results[0].value(metric)
    if value is None:
        return ""
    sent = human_bytes(results[0].upload_bytes)
    return f"best: {results[0].point.label}  ({metric} {number(value)}, {sent} up)"


def to_csv(results: Sequence[Result], metric: str) -> str:
    """A row a point, numbers in full; a metric that is not known is an empty cell."""
    keys = list(results[0].settings)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f"best_{metric}", f"final_{metric}"] if metric else ["best", "final"]
    writer.writerow([*keys, "status", *names, *BYTES, "seconds", "dataset", "folder", "error"])
    for result in results:
        values = [result.value(metric, kind) for kind in ("best", "final")]
        sums = [*(getattr(result, name) for name in BYTES), round(result.seconds, 3)]
        settings = [value_text(result.settings[key]) for key in keys]
        writer.writerow([*settings, result.status, *values, *sums, result.dataset, result.point.name, result.error])
    return out.getvalue()


def to_json(results: Sequence[Result], metric: str) -> dict[str, Any]:
    """The part of results.json about the points; `best` is a folder, or null."""
    found = []
    for result in results:
        row = asdict(result) | {"folder": result.point.name}
        row |= {kind: result.value(metric, kind) for kind in ("best", "final")}
        found.append(row)
    best = results[0].point.name if results[0].value(metric) is not None else None
    return {"metric": metric, "lower_is_better": lower_is_better(metric), "best": best, "points": found}
