# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What came out of each point of a sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bundle.report.model import Report
from bundle.report.wording import embedded_warning
from bundle.sweep_grid import Point
from custom.errors import BundleError
from custom.events import BYTES
from custom.metrics import lower_is_better, weighted_mean
from custom.progress import write_atomically

POINT_FILE = "point.json"
NOT_RUN = "not run"
PERSONALIZED = "personalized_accuracy"  # of held-out writers
PERSONAL, PERSONAL_TEST = "personal_val_accuracy", "personal_test_accuracy"  # of each site's own model
FIRST = (PERSONALIZED, PERSONAL)  # what a job with such scores is about
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
        self.key_metric = next((name for name in FIRST if name in self.metrics), report.key_metric())
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
        return TypeAdapter(Result).validate_json((folder / POINT_FILE).read_bytes())
    except (OSError, ValueError):  # the latter of a field of another type, too
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
    for name, value in _personal(report).items():
        found[name] = _best_and_final(name, [value], [value])
    return {name: values for name, values in found.items() if values}


def _personal(report: Report) -> Values:
    """Accuracy of each site's own model: on validation data, to choose by, and on test data; means over samples."""
    personalization = report.personalization or {}
    sites = {site: row.get("personal") or {} for site, row in personalization.get("sites", {}).items()}
    scores = {site: {"val": row["val_accuracy"]} for site, row in sites.items() if "val_accuracy" in row}
    samples = {site: float(report.samples.get(site, {}).get("validation", 0)) for site in scores}
    found = {PERSONAL: weighted_mean(scores, samples)["val"]} if scores and len(scores) == len(sites) else {}
    test = personalization.get("summary", {}).get("personal", {}).get("mean")
    return found | ({PERSONAL_TEST: float(test)} if isinstance(test, int | float) else {})


def _best_and_final(name: str, values: Iterable[float], last: Sequence[float]) -> Values:
    known = [float(value) for value in values if math.isfinite(value)]
    found = {"best": (min if lower_is_better(name) else max)(known)} if known else {}
    if last and math.isfinite(last[-1]):
        found["final"] = float(last[-1])
    return found


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
