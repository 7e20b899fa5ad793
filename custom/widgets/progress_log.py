# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Writes progress.jsonl and one readable log line a round, at the server; gives the file to `show_stats`."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from nvflare.apis.dxo import MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.shareable import ReservedHeaderKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.fuel.utils.config_factory import ConfigFactory
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector
from nvflare.widgets.widget import Widget

from custom import progress
from custom.errors import LONGEST, BundleError
from custom.executors.site_task import check_code
from custom.keys import EVALUATED, SAMPLES, STANDINGS, TRAIN_METRICS
from custom.metric_ranges import LARGEST, MOST_METRICS, finite
from custom.metrics import weighted_mean
from custom.panic import ends_job
from custom.printable import decimals, printable, shown
from custom.widgets.traffic import Traffic, totals

NOT_AGGREGATED = "the aggregator did not take the update; the server's log says why"
CROSS_SITE = "nvflare.app_common.workflows.cross_site_model_eval.CrossSiteModelEval"


class ProgressLog(Widget):
    """Listens to the server's events; keeps nothing but the counts of the running round.

    Args:
        key_metric: the metric of INITIAL_METRICS that the log line shows.
    """

    agrees = ("key_metric",)  # with ModelSelector

    def __init__(self, key_metric: str = "val_accuracy") -> None:
        super().__init__()
        self.key_metric = key_metric
        self._last_score: float | None = None
        self._run_dir = Path()
        self._packed = (0, progress.pack(b""))  # of the file so far: its size, and `progress.pack` of it
        self._roster: list[str] = []
        self._start_round()

    def _start_round(self) -> None:
        self._started = time.monotonic()
        self._task = "train"  # FLARE does not tell it at ROUND_DONE
        self._traffic = Traffic()
        self._sites: dict[str, dict[str, Any]] = {}
        self._failed: dict[str, str] = {}

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Dispatches FLARE's events."""
        handlers = {
            EventType.START_RUN: self._job_started,
            EventType.START_WORKFLOW: lambda ctx: self._workflow("workflow_started", ctx),
            EventType.END_WORKFLOW: self._workflow_ended,
            AppEventType.ROUND_STARTED: lambda ctx: self._start_round(),
            EventType.BEFORE_TASK_DATA_FILTER: self._traffic.task_to_be_filtered,
            EventType.AFTER_TASK_DATA_FILTER: self._task_sent,
            EventType.BEFORE_TASK_RESULT_FILTER: self._traffic.result_received,
            EventType.AFTER_TASK_RESULT_FILTER: self._result_filtered,
            AppEventType.AFTER_CONTRIBUTION_ACCEPT: self._contribution,
            AppEventType.ROUND_DONE: self._round_done,
            AppEventType.GLOBAL_BEST_MODEL_AVAILABLE: self._best,
            EventType.FATAL_SYSTEM_ERROR: lambda ctx: self._append(
                "fatal", reason=printable(ctx.get_prop(FLContextKey.EVENT_DATA, ""), LONGEST)
            ),
            EventType.END_RUN: self._job_ended,
            InfoCollector.EVENT_TYPE_GET_STATS: self._tell,
        }
        if event_type in handlers:
            handlers[event_type](fl_ctx)

    def _append(self, event: str, **fields: Any) -> None:
        progress.append(self._run_dir, event, **fields)

    def _tell(self, fl_ctx: FLContext) -> None:
        """Answers `show_stats` of an admin, which all with the right `view` may ask; in a thread of its own."""
        collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
        if isinstance(collector, GroupInfoCollector):
            lines = progress.read(self._run_dir)
            if len(lines) != self._packed[0]:
                self._packed = (len(lines), progress.pack(lines))
            collector.set_info(progress.STATS, {progress.PACKED: self._packed[1]})

    def _job_started(self, fl_ctx: FLContext) -> None:
        logging.getLogger(CROSS_SITE).addFilter(_not_about_formatters)
        engine, job_id = fl_ctx.get_engine(), fl_ctx.get_job_id()
        workspace = engine.get_workspace()
        self._run_dir = Path(workspace.get_run_dir(job_id))
        self._roster = sorted(client.name for client in engine.get_clients())
        config = ConfigFactory.load_config("config_fed_server.json", [workspace.get_app_config_dir(job_id)])
        meta = fl_ctx.get_prop(FLContextKey.JOB_META) or {}
        self._append(
            "job_started",
            job=str(meta.get(JobMetaKey.JOB_NAME) or ""),
            job_id=job_id,
            sites=self._roster,
            workflows=[str(workflow.get("id", "")) for workflow in config.to_dict()["workflows"]] if config else [],
        )
        try:
            check_code(fl_ctx)
        except BundleError as error:
            self.system_panic(error.coded(), fl_ctx)

    def _workflow(self, event: str, fl_ctx: FLContext) -> None:
        self._append(event, workflow=fl_ctx.get_prop(FLContextKey.WORKFLOW))

    def _workflow_ended(self, fl_ctx: FLContext) -> None:
        """FLARE fires the event also for a workflow that an abort has cut short."""
        if not _aborted(fl_ctx):
            self._workflow("workflow_finished", fl_ctx)

    def _job_ended(self, fl_ctx: FLContext) -> None:
        self._append("job_ended", **({"aborted": True} if _aborted(fl_ctx) else {}))

    def _task_sent(self, fl_ctx: FLContext) -> None:
        self._traffic.task_sent(fl_ctx)
        self._task = fl_ctx.get_prop(FLContextKey.TASK_NAME) or self._task

    def _result_filtered(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        code = result.get_return_code(default=ReturnCode.OK)
        site = fl_ctx.get_peer_context().get_identity_name()
        if code == ReturnCode.EXECUTION_EXCEPTION and _only_scores(site, fl_ctx):
            self.log_info(fl_ctx, f"{site} has no training samples, so no model of its own to submit")
            return
        if code == ReturnCode.TASK_RESULT_FILTER_ERROR and site in self._sites:
            return  # a result sent twice: the second is refused, and the first counts
        if code != ReturnCode.OK:
            task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
            self._failed[site] = printable(result.get_header(ReservedHeaderKey.ERROR) or code)
            if code != ReturnCode.TASK_RESULT_FILTER_ERROR:  # the filter that refused it has said so
                self.log_error(fl_ctx, f"{site} failed at {task}: {self._failed[site]}")
            self._append("site_error", site=site, task=task, reason=self._failed[site])

    def _contribution(self, fl_ctx: FLContext) -> None:
        site = fl_ctx.get_peer_context().get_identity_name()
        if not fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED, True):
            if site not in self._sites:
                self._failed.setdefault(site, NOT_AGGREGATED)
            return
        result = from_shareable(fl_ctx.get_prop(AppConstants.TRAINING_RESULT))
        self._failed.pop(site, None)
        self._sites[site] = {
            "samples": max(numbers(result.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 0)).get("metric", 0.0), 0.0),
            "received": numbers(result.get_meta_prop(MetaKey.INITIAL_METRICS)),
            "train": numbers(result.get_meta_prop(TRAIN_METRICS)),
        }
        evaluated = result.get_meta_prop(EVALUATED)
        if isinstance(evaluated, dict):
            self._sites[site]["evaluated"] = numbers(evaluated)

    def _round_done(self, fl_ctx: FLContext) -> None:
        round_number = fl_ctx.get_prop(AppConstants.CURRENT_ROUND) + 1
        num_rounds = fl_ctx.get_prop(AppConstants.START_ROUND, 0) + fl_ctx.get_prop(AppConstants.NUM_ROUNDS)
        seconds = time.monotonic() - self._started
        traffic = self._traffic.by_site()
        total = totals(traffic)
        standings = fl_ctx.get_prop(STANDINGS) or {}
        sites = {
            site: facts | traffic.pop(site, {}) | ({"update": standings[site]} if site in standings else {})
            for site, facts in sorted(self._sites.items())
        }
        failed = dict(self._failed)
        self._append(
            "round",
            round=round_number,
            num_rounds=num_rounds,
            task=self._task,
            seconds=round(seconds, 3),
            **total,
            sites=sites,
            failed=failed,
            uncounted=traffic,  # of the sites whose update was not accepted
        )
        self._sites, self._failed = {}, {}  # what comes now belongs to no round
        score = weighted_mean({s: v["received"] for s, v in sites.items()}, {s: v["samples"] for s, v in sites.items()})
        task = "" if self._task == "train" else f"{self._task} "
        line = f"{task}round {round_number}/{num_rounds}  {self._score(score)}{_evaluated(sites)}"
        line += f"{len(sites)}/{len(self._roster)} sites  "
        line += f"up {total['upload_bytes'] / 1e6:.1f} MB  {seconds:.1f} s"
        if len(sites) < len(self._roster):
            self.log_warning(fl_ctx, f"{line}  without {', '.join(sorted(set(self._roster) - sites.keys()))}")
        else:
            self.log_info(fl_ctx, line)

    def _score(self, metrics: dict[str, float]) -> str:
        value = metrics.get(self.key_metric)
        if value is None:
            return ""
        change = "" if self._last_score is None else f" ({decimals(value - self._last_score, 3, '+')})"
        self._last_score = value
        return f"received {self.key_metric} {decimals(value, 3)}{change}  "

    def _best(self, fl_ctx: FLContext) -> None:
        selection = fl_ctx.get_prop(AppConstants.METRICS_SELECTION_INFO) or {}
        for metric, value in selection.get("best_metrics", {}).items():
            rule = {"rule": selection["rule"]} if selection.get("rule") else {}
            self._append("best", round=selection["best_round"], metric=metric, value=value, **rule)


def _only_scores(site: str, fl_ctx: FLContext) -> bool:
    """Is it asked for its own model, which it told the server at the start that it would not have?"""
    told = (fl_ctx.get_prop(SAMPLES) or {}).get(site) or {}
    return fl_ctx.get_prop(FLContextKey.TASK_NAME) == AppConstants.TASK_SUBMIT_MODEL and told.get("train") == 0


def _aborted(fl_ctx: FLContext) -> bool:
    signal = fl_ctx.get_run_abort_signal()
    return signal is not None and signal.triggered


def _not_about_formatters(record: logging.LogRecord) -> bool:
    """FLARE's warning each time that stats are asked for: a line a second while a dashboard is open."""
    return "No formatter provided" not in record.getMessage()


def _evaluated(sites: dict[str, dict[str, Any]]) -> str:
    scores = {site: facts["evaluated"] for site, facts in sites.items() if "writers" in facts.get("evaluated", {})}
    mean = weighted_mean(scores, {site: score["writers"] for site, score in scores.items()})
    before, after = mean.get("initial_accuracy"), mean.get("personalized_accuracy")
    return "" if before is None or after is None else f"held-out writers {before:.3f} -> {after:.3f}  "


def numbers(metrics: Any) -> dict[str, float]:
    """The numbers among a site's metrics, at most 100, none larger than LARGEST; labels and the like are left out."""
    pairs = metrics.items() if isinstance(metrics, dict) else {"metric": metrics}.items()
    real = {shown(name): finite(value) for name, value in pairs if not isinstance(value, bool)}
    sized = {name: value for name, value in real.items() if value is not None and abs(value) <= LARGEST}
    return dict(list(sized.items())[:MOST_METRICS])
