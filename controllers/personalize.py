# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Scores the global model on writers that took no part in training, before and after each has made it its own.

The last workflow of Per-FedAvg (Jiang et al. 2019, https://arxiv.org/abs/1909.12488). Sites return scores, one entry a
writer; what the writers made of the model stays with them.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.model import ModelLearnable, model_learnable_to_dxo
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from controllers.collect import Replies, check_seconds, collect
from custom import progress
from custom.checks.claims import HELD_OUT, Facts, check_writers
from custom.checks.update import Origin, UpdateRejected, check_metrics, is_finite_number
from custom.errors import BundleError
from custom.keys import ROUNDS_BEFORE, SAMPLES
from custom.metric_ranges import MOST_SAMPLES
from custom.panic import ends_job
from custom.printable import shown

COUNTS = ("support", "query")
UNSEEN = "unseen"
SCORES = ("initial_loss", "initial_accuracy", "personalized_loss", "personalized_accuracy")


class Personalize(Controller):
    """Runs once, after the training rounds.

    Args:
        task_name: the task that the sites' Personalizer is bound to.
        timeout_s: seconds after which a site that has not answered counts as failed; the others go on.
        target_accuracy: reports say after how many rounds the mean over writers reached it; null: of no interest.
    """

    def __init__(
        self, task_name: str = "personalize", timeout_s: int = 3600, target_accuracy: float | None = None
    ) -> None:
        super().__init__(task_check_period=0.05)
        self.task_name, self.timeout_s, self.target_accuracy = task_name, timeout_s, target_accuracy
        self._rounds: Counter[str] = Counter()  # of each training workflow

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_seconds(1, timeout_s=self.timeout_s)
        target = self.target_accuracy
        if target is not None and not (is_finite_number(target) and 0 < target <= 1):
            raise BundleError(
                code="setting-value", key="target_accuracy", expected="null, or a share of 1", got=repr(target)
            )

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Counts the rounds that the model has behind it."""
        super().handle_event(event_type, fl_ctx)
        if event_type == AppEventType.ROUND_DONE:
            self._rounds[str(fl_ctx.get_prop(FLContextKey.WORKFLOW))] += 1

    def start_controller(self, fl_ctx: FLContext) -> None:
        """There must be something to personalise."""
        try:
            self.check()
            if not isinstance(fl_ctx.get_prop(AppConstants.GLOBAL_MODEL), ModelLearnable):
                raise BundleError(
                    "there is no global model yet; put this workflow after training",
                    code="nothing-trained",
                    key=self.task_name,
                )
        except BundleError as error:
            self.system_panic(error.coded(), fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Sends the model, collects the scores, writes personalize.json and personalize.csv."""
        if abort_signal.triggered:  # FLARE comes here even when start_controller has ended the job
            return
        model = model_learnable_to_dxo(fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)).to_shareable()
        replies = collect(
            self, self.task_name, model, fl_ctx, abort_signal, kind=DataKind.METRICS, timeout_s=self.timeout_s
        )
        if abort_signal.triggered:
            return
        facts = fl_ctx.get_prop(SAMPLES)
        replies.refuse(lambda origin, dxo: check_reply(origin, dxo, facts))
        for site, reason in sorted(replies.errors.items()):
            self.log_error(fl_ctx, f"{site} did not personalise: {reason}")
        self._report(replies, fl_ctx)
        if not any(dxo.data["query"] for dxo in replies.results.values()):
            reasons = replies.reasons() or "no site has any, or all diverged"
            self.system_panic(f"{self.task_name}: no held-out writer was scored ({reasons})", fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to stop."""

    def process_result_of_unknown_task(self, *args: object) -> None:
        """Scores that come too late are dropped."""

    def _report(self, replies: Replies, fl_ctx: FLContext) -> None:
        sites = {site: dict(dxo.data) for site, dxo in sorted(replies.results.items())}
        summary = summarise(sites)
        result = {
            "rounds": dict(Counter(fl_ctx.get_prop(ROUNDS_BEFORE) or {}) + self._rounds),
            "target_accuracy": self.target_accuracy,
            "sites": sites,
            "failed": dict(sorted(replies.errors.items())),
            "summary": summary,
        }
        run_dir = Path(self._engine.get_workspace().get_run_dir(fl_ctx.get_job_id()))
        progress.record(run_dir, "personalized", "personalize", result, to_csv(sites))
        if summary:
            before, after = (summary[when]["accuracy"]["mean"] for when in ("initial", "personalized"))
            gain = summary["gain"]
            self.log_info(
                fl_ctx,
                f"personalised {summary['writers']} held-out writers  accuracy {before:.3f} -> {after:.3f}  gain "
                f"{100 * gain['mean']:+.1f} +- {100 * gain['standard_error']:.1f} points  "
                f"{100 * summary['harmed']:.0f} % harmed",
            )


def check_reply(origin: Origin, dxo: DXO, facts: Facts | None = None) -> None:
    """Lists of one length, of scores in their range and of counts above 0, and `dropped`.

    Args:
        origin: whose reply it is.
        dxo: the reply.
        facts: what the sites said before training, if they did.

    Raises:
        BundleError: it holds something else.
    """
    columns = {name: dxo.data.get(name) for name in (*COUNTS, UNSEEN, *SCORES)}
    dropped = dxo.data.get("dropped")
    if set(dxo.data) != {*columns, "dropped"} or not all(isinstance(column, list) for column in columns.values()):
        raise _unfit(origin, f"dropped, and lists named {', '.join(columns)}", list(dxo.data))
    if len({len(column) for column in columns.values()}) != 1:
        raise _unfit(origin, "lists of one length", {name: len(column) for name, column in columns.items()})
    if not _is_count(dropped, 0):
        raise _unfit(origin, "the number of dropped writers", dropped)
    check_writers({"writers": len(columns["query"]), "dropped_writers": dropped}, HELD_OUT, origin, facts)
    for name in (*COUNTS, UNSEEN):
        for count in columns[name]:
            if not _is_count(count, 0 if name == UNSEEN else 1):
                raise _unfit(origin, f"numbers of {name} samples", count)
    if any(unseen > query for unseen, query in zip(columns[UNSEEN], columns["query"], strict=True)):
        raise _unfit(origin, "no more query samples of unseen classes than query samples", "more")
    for name in SCORES:
        for value in columns[name]:
            check_metrics({name: value}, origin)


def _is_count(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= MOST_SAMPLES


def _unfit(origin: Origin, expected: str, got: Any) -> UpdateRejected:
    return UpdateRejected("metrics", origin, key="scores of its writers", expected=expected, got=shown(got))


def summarise(sites: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What personalising came to over all writers, every writer alike.

    Args:
        sites: for each site the fields of `custom.learning.personalize.Personalized`.

    Returns:
        `writers`, and how many more were `dropped`; for `initial` and `personalized` the mean, sample standard
        deviation, 10th and 90th percentile of `accuracy` and `loss`; the same for the paired `gain` of accuracy, and
        its `standard_error`; `harmed`, the share of writers whose accuracy fell; `query_samples` of all writers, how
        many of them are of classes that the writer's support samples lack (`unseen_query_samples`), and their share
        (`unseen_query_share`). Empty without writers.
    """
    columns = {name: np.array([v for row in sites.values() for v in row[name]], dtype=np.float64) for name in SCORES}
    count = len(columns["initial_accuracy"])
    if not count:
        return {}
    gain = columns["personalized_accuracy"] - columns["initial_accuracy"]
    scores = {
        when: {metric: _spread(columns[f"{when}_{metric}"]) for metric in ("accuracy", "loss")}
        for when in ("initial", "personalized")
    }
    spread = _spread(gain)
    query, unseen = (sum(n for row in sites.values() for n in row[name]) for name in ("query", UNSEEN))
    return {
        "writers": count,
        "dropped": sum(row["dropped"] for row in sites.values()),
        **scores,
        "gain": {**spread, "standard_error": spread["std"] / math.sqrt(count)},
        "harmed": float((gain < 0).mean()),
        "query_samples": query,
        "unseen_query_samples": unseen,
        "unseen_query_share": unseen / query,
    }


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    p10, p90 = np.percentile(values, (10, 90))
    std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(values.mean()), "std": std, "p10": float(p10), "p90": float(p90)}


def to_csv(sites: dict[str, dict[str, Any]]) -> str:
    """One line a writer, by site and place."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("site", "writer", *COUNTS, *SCORES))
    for site, row in sorted(sites.items()):
        for place, values in enumerate(zip(*(row[name] for name in (*COUNTS, *SCORES)), strict=True)):
            table.writerow((site, place, *values))
    return text.getvalue()
