# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Every site fine-tunes the global model and keeps the result; the server collects scores, never weights.

After training: FedAvg, then local fine-tuning, as in FL4Health's fl_plus_local_ft example.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from pathlib import Path
from typing import Any

from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants, DefaultCheckpointFileName
from nvflare.app_opt.pt.file_model_persistor import PTFileModelPersistor

from controllers.collect import Replies, check_seconds, collect
from custom import progress
from custom.checks.claims import Facts, told
from custom.checks.update import Origin, UpdateRejected, check_metrics, check_weight
from custom.errors import BundleError
from custom.events import Best, of_kind, parse_lines
from custom.keys import ROUNDS, SAMPLES
from custom.learning.weights import Weights
from custom.metric_ranges import MOST_SAMPLES
from custom.panic import ends_job
from custom.printable import shown
from custom.widgets.progress_log import numbers

START_FROM = ("final", "best")
KINDS = ("local_only", "global", "personal")
EPOCHS = ("best_epoch", "epochs")
MOST_EPOCHS = 1_000_000
HARMED_POINTS = 0.01  # of test accuracy: below that, a difference of a few images is no harm


class FineTune(Controller):
    """Runs once, after the training rounds.

    Args:
        task_name: the task that the sites' FineTuner is bound to.
        start_from: `final`, the model of the last round, or `best`, that of the best round on validation. How many
            rounds that one has behind it stands in the events of the ProgressLog, without which nobody is told.
        min_responses: sites that are enough to go on after `wait_time_after_min_received`, and without which the job
            ends; 0 waits for all and goes on with one.
        wait_time_after_min_received: seconds to wait for the others after that many have answered.
        timeout_s: seconds after which a site that has not answered counts as failed.
        persistor_id: the persistor that keeps the best model.
    """

    def __init__(
        self,
        task_name: str = "fine_tune",
        start_from: str = "best",
        min_responses: int = 0,
        wait_time_after_min_received: int = 600,
        timeout_s: int = 3600,
        persistor_id: str = "persistor",
    ) -> None:
        super().__init__(task_check_period=0.05)
        self.task_name, self.start_from, self.min_responses = task_name, start_from, min_responses
        self.wait_time_after_min_received = wait_time_after_min_received
        self.timeout_s, self.persistor_id = timeout_s, persistor_id

    def check(self) -> None:
        """Looks at the settings.

        Raises:
            BundleError: one is out of range.
        """
        if self.start_from not in START_FROM:
            raise BundleError(
                code="setting-value",
                key="start_from",
                expected=f"one of {', '.join(START_FROM)}",
                got=repr(self.start_from),
            )
        check_seconds(1, timeout_s=self.timeout_s)
        check_seconds(0, wait_time_after_min_received=self.wait_time_after_min_received)
        if not isinstance(self.min_responses, int) or self.min_responses < 0:
            raise BundleError(
                code="setting-value",
                key="min_responses",
                expected="an integer of at least 0",
                got=repr(self.min_responses),
            )

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Finds before any training what would make fine-tuning fail after all of it."""
        super().handle_event(event_type, fl_ctx)
        if event_type == EventType.START_RUN:
            self._check_job(fl_ctx)

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Finds the model to start from."""
        try:
            self._rounds: int | None = self._rounds_trained(fl_ctx)
            self._check_job(fl_ctx)
            self._weights = self._starting_weights(fl_ctx)
            if self.start_from == "best":
                self._rounds = _best_round(self._run_dir(fl_ctx))
        except BundleError as error:
            self.system_panic(error.coded(), fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Sends the model, collects the scores, writes fine_tune.json and fine_tune.csv."""
        if abort_signal.triggered:  # FLARE comes here even when start_controller has ended the job
            return
        task_data = DXO(DataKind.WEIGHTS, data=self._weights).to_shareable()
        task_data.set_header(ROUNDS, self._rounds)
        replies = collect(
            self,
            self.task_name,
            task_data,
            fl_ctx,
            abort_signal,
            kind=DataKind.METRICS,
            timeout_s=self.timeout_s,
            min_responses=self.min_responses,
            wait_after_min_s=self.wait_time_after_min_received,
        )
        if abort_signal.triggered:
            return
        facts = fl_ctx.get_prop(SAMPLES)
        replies.refuse(lambda origin, dxo: check_reply(origin, dxo, facts))
        for site, reason in sorted(replies.errors.items()):
            self.log_error(fl_ctx, f"{site} did not report a personal model: {reason}")
        self._report(replies, fl_ctx)
        if len(replies.results) < max(1, self.min_responses):
            self.system_panic(
                f"{self.task_name}: {len(replies.results)} sites succeeded, {max(1, self.min_responses)} are needed "
                f"({replies.reasons()})",
                fl_ctx,
            )

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to stop."""

    def process_result_of_unknown_task(self, *args: object) -> None:
        """Scores that come too late are dropped; the personal model is at its site all the same."""

    def _rounds_trained(self, fl_ctx: FLContext) -> int:
        last = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        if last is None or not isinstance(fl_ctx.get_prop(AppConstants.GLOBAL_MODEL), ModelLearnable):
            raise BundleError(
                "there is no trained model to fine-tune",
                code="nothing-trained",
                key=self.task_name,
                remedy="put this workflow after ScatterAndGather in config_fed_server.json",
            )
        return int(last) + 1

    def _starting_weights(self, fl_ctx: FLContext) -> Weights:
        if self.start_from == "final":
            return fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]
        best = self._persistor(fl_ctx).get_model(DefaultCheckpointFileName.BEST_GLOBAL_MODEL, fl_ctx)
        if best is None:
            raise BundleError(
                "there is no best model yet: none has been scored",
                code="nothing-trained",
                key="start_from best",
                remedy="put closing_validation before this workflow, or start from the final model",
            )
        return best[ModelLearnableKey.WEIGHTS]

    def _check_job(self, fl_ctx: FLContext) -> None:
        self.check()
        sites = len(fl_ctx.get_engine().get_clients())
        if self.min_responses > sites:
            raise BundleError(
                code="setting-value", key="min_responses", expected=f"at most {sites} sites", got=self.min_responses
            )
        if self.start_from == "best":
            self._persistor(fl_ctx)

    def _persistor(self, fl_ctx: FLContext) -> PTFileModelPersistor:
        persistor = fl_ctx.get_engine().get_component(self.persistor_id)
        if not isinstance(persistor, PTFileModelPersistor):
            raise BundleError(
                code="job-component",
                key="persistor_id",
                expected="the id of a PTFileModelPersistor",
                got=self.persistor_id,
            )
        return persistor

    def _run_dir(self, fl_ctx: FLContext) -> Path:
        return Path(self._engine.get_workspace().get_run_dir(fl_ctx.get_job_id()))

    def _report(self, replies: Replies, fl_ctx: FLContext) -> None:
        sites = {
            site: {
                **{kind: numbers(scores) if kind in KINDS else scores for kind, scores in dxo.data.items()},
                "samples": dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND),
                "test_samples": dxo.get_meta_prop("test_samples"),
            }
            for site, dxo in sorted(replies.results.items())
        }
        summary = summarise(sites)
        result = {
            "start_from": self.start_from,
            "rounds": self._rounds,
            "sites": sites,
            "failed": dict(sorted(replies.errors.items())),
            "summary": summary,
        }
        progress.record(self._run_dir(fl_ctx), "fine_tuned", "fine_tune", result, to_csv(sites))
        for kind in KINDS:
            if kind in summary:
                row = summary[kind]
                scores = f"test_accuracy {row['mean']:.3f} +- {row['std']:.3f}  worst {row['worst']:.3f}"
                self.log_info(fl_ctx, f"fine_tune  {kind}  {scores} ({row['worst_site']})")


def _best_round(run_dir: Path) -> int | None:
    rounds = [event.round for event in of_kind(parse_lines(progress.read(run_dir)), Best)]
    return rounds[-1] if rounds else None


def summarise(sites: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Test accuracy of each kind of model over the sites, and how many sites personalising harmed.

    Args:
        sites: for each site the scores of `global`, `personal` and perhaps `local_only`, and `test_samples`.

    Returns:
        For each kind `{"mean": weighted by test samples, "std": over sites, "worst": float, "worst_site": name}`;
        `harmed_on_test`, the share of sites that lost more than a point of test accuracy, and
        `harmed_on_validation`, that lost anything on validation. Empty without sites.
    """
    if not sites:
        return {}
    summary: dict[str, Any] = {}
    for kind in KINDS:
        scores = {site: row[kind]["test_accuracy"] for site, row in sites.items() if kind in row}
        if len(scores) == len(sites):
            weights = [sites[site]["test_samples"] for site in scores]
            total = math.fsum(weight * score for weight, score in zip(weights, scores.values(), strict=True))
            worst = min(scores, key=lambda site: scores[site])
            summary[kind] = {
                "mean": total / sum(weights),
                "std": statistics.stdev(scores.values()) if len(scores) > 1 else 0.0,
                "worst": scores[worst],
                "worst_site": worst,
            }

    def harmed(metric: str, margin: float) -> float:
        rows = sites.values()
        return sum(row["global"][metric] - row["personal"][metric] > margin for row in rows) / len(sites)

    summary["harmed_on_test"] = harmed("test_accuracy", HARMED_POINTS)
    summary["harmed_on_validation"] = harmed("val_accuracy", 0.0)
    return summary


def to_csv(sites: dict[str, dict[str, Any]]) -> str:
    """One line a site, model and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["site", "model", "metric", "value"])
    for site, row in sites.items():
        for kind in KINDS:
            writer.writerows([site, kind, metric, value] for metric, value in row.get(kind, {}).items())
    return text.getvalue()


def check_reply(origin: Origin, dxo: DXO, facts: Facts | None = None) -> None:
    """Scores of the global, the personal and perhaps the local model, with accuracies; epochs, and numbers of samples.

    Args:
        origin: whose reply it is.
        dxo: the reply.
        facts: what the sites said before training, if they did.

    Raises:
        BundleError: it holds something else.
    """
    kinds = [kind for kind in KINDS if kind != "local_only" or kind in dxo.data]
    for kind in kinds:
        scores = dxo.data.get(kind)
        if not isinstance(scores, dict) or not {"val_accuracy", "test_accuracy"} <= scores.keys():
            expected = "val_accuracy and test_accuracy"
            raise UpdateRejected("metrics", origin, key=f"scores of {kind}", expected=expected, got=shown(scores))
        check_metrics(scores, origin)
    for name in dxo.data.keys() - {*KINDS}:
        if name not in EPOCHS or type(dxo.data[name]) is not int or not 0 <= dxo.data[name] <= MOST_EPOCHS:
            got = f"{shown(name)}: {shown(dxo.data[name])}"
            raise UpdateRejected("metrics", origin, expected=f"whole numbers as {' and '.join(EPOCHS)}", got=got)
    for prop, split in ((MetaKey.NUM_STEPS_CURRENT_ROUND, "train"), ("test_samples", "test")):
        samples = check_weight(
            dxo.get_meta_prop(prop), origin, max_weight=told(facts, origin.site, split, MOST_SAMPLES)
        )
        if split == "test" and not samples:
            raise UpdateRejected("weight", origin, key="test_samples", expected="at least 1", got=0)
