# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The facts of one job, as every way of showing them needs them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from bundle.report.writers import Writers
from custom.checks.outliers import Outlier
from custom.events import BYTES
from custom.metrics import NEGATIVES, POSITIVES, is_count, lower_is_better, weighted_mean

Metrics = dict[str, float]
Sites = dict[str, Metrics]
COUNTS = ("writers", "dropped_writers")  # of a training round; their aggregate is the sum


@dataclass
class Score:
    """Metrics of one model: at each site, and of all sites, as `custom.metrics.weighted_mean` gives them."""

    sites: Sites = field(default_factory=dict)
    aggregate: Metrics = field(default_factory=dict)


@dataclass
class Round(Score):
    """One round; the validation metrics are those of the global model AFTER it.

    Attributes:
        task: what the sites were asked to do.
        round: counted from 1, in most jobs anew for each task.
        num_rounds: that were planned for this task.
        position: rounds of training behind the model after this one, those of earlier tasks included.
        seconds: from the round's start to its end at the server.
        upload_bytes: received from all sites.
        download_bytes: sent to all sites.
        dense_upload_bytes, dense_download_bytes: what dense exchange of the same messages would have cost; None if it
            was not recorded.
        site_bytes: these four by site, those that failed included; empty if it was not recorded.
        failed: the reason by site.
    """

    task: str = "train"
    round: int = 0
    num_rounds: int = 0
    position: int = 0
    seconds: float = 0.0
    upload_bytes: int = 0
    download_bytes: int = 0
    dense_upload_bytes: int | None = None
    dense_download_bytes: int | None = None
    site_bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object of `report --json`."""
        names = ("round", "seconds", "sites", "aggregate", *BYTES, "site_bytes")
        return {name: getattr(self, name) for name in names}


@dataclass
class Report:
    """One job.

    Attributes:
        job: its name.
        job_id: FLARE's id.
        folder: where it was read.
        continued: `{"job_id", "workflow", "round"}` of the job that this one continues and its last round, or None.
        site_names: the roster, sorted.
        num_rounds: rounds that were planned, of all tasks; 0 if no round was.
        seconds: from the first event to the last.
        dataset: what the sites said of their data, or None.
        samples: number of samples, by site and split.
        left_out: how many items of its data a site saw and left out, by site and reason.
        data_notes: how a site read its data, by site.
        initial: the score of the model before round 1, if it is known.
        cross_site: metrics by model and site.
        personalization: what fine-tuning came to, as in fine_tune.json; and `elsewhere`, if personal models are shared:
            see `bundle.report.personal`. None if there was no fine-tuning.
        writers: what personalising came to for writers that no training saw, or None: see `bundle.report.writers`.
        best: `{"round", "metric", "value"}` of the best global model, or None; `value` is the mean in the table of
            rounds. Where another number chose the model, as with three or more sites, `chosen_by` has it:
            `{"rule", "value"}`.
        asked_for_embedded: the arguments that ask for embedded data or an embedded encoder, of `dataset` and
            `model_name_or_path`.
        status: `completed`, `completed without SITE`, `failed`, `aborted`, `incomplete`, or `not recorded` of a job
            without ProgressLog.
        outliers: the sites to look at, since their updates stand out.
        errors: what went wrong, the first cause first.
        warnings: what a reader should know all the same.
        models: where each model lies, by what it is.
    """

    job: str = ""
    job_id: str = ""
    folder: str = ""
    continued: dict[str, Any] | None = None
    site_names: list[str] = field(default_factory=list)
    num_rounds: int = 0
    seconds: float = 0.0
    dataset: dict[str, Any] | None = None
    samples: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    data_notes: dict[str, list[str]] = field(default_factory=dict)
    initial: Score | None = None
    rounds: list[Round] = field(default_factory=list)
    cross_site: dict[str, Sites] = field(default_factory=dict)
    personalization: dict[str, Any] | None = None
    writers: Writers | None = None
    best: dict[str, Any] | None = None
    asked_for_embedded: set[str] | None = None
    status: str = "incomplete"
    outliers: list[Outlier] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Did the job really end, by evidence?"""
        return self.status.startswith("completed")

    @property
    def embedded(self) -> bool:
        """Was any result got on the small embedded data set instead of the one that was asked for?"""
        return bool(self.dataset and self.dataset.get("embedded"))

    @property
    def encoder_embedded(self) -> bool:
        """The same of a text model's encoder, whatever the data set."""
        return bool(self.dataset and self.dataset.get("encoder_embedded"))

    @property
    def tasks(self) -> list[str]:
        """The tasks that had rounds, in their order: more than one where one workflow trains after another."""
        return list(dict.fromkeys(row.task for row in self.rounds))

    @property
    def done(self) -> str:
        """`7 of 10`: rounds that are over, those of the job that this one continues included."""
        return f"{self.rounds_done} of {self.num_rounds}" if self.num_rounds else str(self.rounds_done)

    @property
    def rounds_done(self) -> int:
        """How many rounds of training the last model has behind it."""
        return self.rounds[-1].position if self.rounds else 0

    def task_starts(self) -> list[tuple[int, str]]:
        """For each of `tasks` the rounds of training before its first."""
        return [(next(row.position for row in self.rounds if row.task == task) - 1, task) for task in self.tasks]

    def total_bytes(self, name: str) -> int | None:
        """The sum over all rounds of one of BYTES; None if it is not known of one of them."""
        counts = [getattr(row, name) for row in self.rounds]
        return None if None in counts else sum(counts)

    def best_row(self) -> Round | None:
        """The round after which the global model was the best; None where several tasks had a round of that number."""
        if not self.best or len(self.tasks) != 1:
            return None
        return next((row for row in reversed(self.rounds) if row.round == self.best["round"]), None)

    def metrics(self) -> list[str]:
        """The metrics that any global model has, by name; no counts."""
        scores = [*self.rounds, *([self.initial] if self.initial else [])]
        names = {name for score in scores for name in score.aggregate} - set(COUNTS)
        return sorted(name for name in names if not is_count(name))

    def key_metric(self) -> str:
        """The metric to show first: that of model selection, else an accuracy, else any."""
        names = self.metrics()
        if self.best and self.best.get("metric") in names:
            return str(self.best["metric"])
        return _prefer(names, "val_accuracy")

    def scores(self) -> list[str]:
        """The metrics to show a table of, the first first: all but losses, unless it is the first."""
        return _but_losses(self.metrics(), self.key_metric())

    def cross_metric(self) -> str:
        """The first metric of the cross-site matrix."""
        return _prefer(self._cross_metrics(), "test_accuracy")

    def cross_scores(self) -> list[str]:
        """As `scores`, of the cross-site matrix."""
        return _but_losses(self._cross_metrics(), self.cross_metric())

    def cross_aggregate(self, model: str) -> Metrics:
        """Test metrics over all sites, each image counted once; empty where sites do not say how many they have."""
        sites = self.cross_site[model]
        totals = {site: m.get(f"test_{POSITIVES}", 0) + m.get(f"test_{NEGATIVES}", 0) for site, m in sites.items()}
        return weighted_mean(sites, totals) if totals and all(totals.values()) else {}

    def _cross_metrics(self) -> list[str]:
        names = {name for sites in self.cross_site.values() for metrics in sites.values() for name in metrics}
        return sorted(name for name in names if not is_count(name))

    def to_json(self) -> dict[str, Any]:
        """The object of `report --json`; what is not valid JSON, such as NaN, is null."""
        several = len(self.tasks) > 1
        content = {
            "job": self.job,
            **({"continued": self.continued} if self.continued else {}),
            "dataset": self.dataset,
            "left_out": self.left_out,
            "data_notes": self.data_notes,
            "initial": {"sites": self.initial.sites, "aggregate": self.initial.aggregate} if self.initial else None,
            "rounds": [({"task": row.task} if several else {}) | row.to_json() for row in self.rounds],
            "cross_site": self.cross_site,
            "personalization": self.writers.to_json() if self.writers else self.personalization,
            "best": self.best,
            "status": self.status,
            "outliers": [asdict(outlier) | {"sentence": outlier.sentence} for outlier in self.outliers],
            "errors": self.errors,
            "warnings": self.warnings,
        }
        return as_json(content)


def as_json(value: Any) -> Any:
    """The same with null in the place of numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {name: as_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _prefer(names: list[str], first: str) -> str:
    ranked = sorted(names, key=lambda name: (name != first, "accuracy" not in name, name))
    return ranked[0] if ranked else ""


def _but_losses(names: list[str], first: str) -> list[str]:
    return [first, *(name for name in names if name != first and not lower_is_better(name))]
