# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Scores the last global model, which no training round does, and makes it the best one if it is.

In FLARE a site scores the model it receives, so the model of the last round has no score and can never be `best`. This
workflow, after ScatterAndGather, asks the sites for its score on their validation splits.
"""

from __future__ import annotations

from pathlib import Path

from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.model import ModelLearnable, model_learnable_to_dxo
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.widgets.intime_model_selector import IntimeModelSelector

from controllers.collect import Replies, check_seconds, collect
from custom import progress
from custom.checks.claims import check_scores
from custom.checks.update import Origin
from custom.errors import BundleError
from custom.keys import SAMPLES, SPLIT
from custom.metrics import (
    check_direction,
    is_count,
    lower_is_better,
    selection_score,
    unknown_metric,
    weighted_mean,
)
from custom.panic import ends_job
from custom.printable import decimals
from custom.widgets.model_selector import ModelSelector
from custom.widgets.progress_log import numbers


class ClosingValidation(Controller):
    """Runs once, after the training rounds.

    Args:
        task_name: the task that the sites' Validator is bound to.
        timeout_s: seconds to wait for the sites; the score is the mean over those that answered.
        selector_id: the ModelSelector, or FLARE's IntimeModelSelector, whose best score is to be beaten.
    """

    def __init__(
        self,
        task_name: str = AppConstants.TASK_VALIDATION,
        timeout_s: int = 600,
        selector_id: str = "model_selector",
    ) -> None:
        super().__init__(task_check_period=0.05)
        self.task_name, self.timeout_s, self.selector_id = task_name, timeout_s, selector_id

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_seconds(1, timeout_s=self.timeout_s)

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Ends a job at its start whose FLARE selector would take the worst model for the best."""
        super().handle_event(event_type, fl_ctx)
        if event_type == EventType.START_RUN:
            selector = fl_ctx.get_engine().get_component(self.selector_id)
            if isinstance(selector, IntimeModelSelector) and lower_is_better(selector.key_metric) is not None:
                check_direction(selector.key_metric, selector.negate_key_metric)

    def start_controller(self, fl_ctx: FLContext) -> None:
        """There must be something to score, and something to compare with."""
        try:
            self.check()
        except BundleError as error:
            self.system_panic(error.coded(), fl_ctx)
            return
        if not isinstance(fl_ctx.get_prop(AppConstants.GLOBAL_MODEL), ModelLearnable):
            self.system_panic("closing_validation: no global model yet; put this workflow after training", fl_ctx)
        elif not isinstance(self._engine.get_component(self.selector_id), IntimeModelSelector):
            self.system_panic(f"closing_validation: {self.selector_id} is not a model selector of this job", fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Asks all sites, then writes the score down."""
        if abort_signal.triggered:  # FLARE comes here even when start_controller has ended the job
            return
        task_data = model_learnable_to_dxo(fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)).to_shareable()
        task_data.set_header(SPLIT, "validation")
        replies = collect(
            self, self.task_name, task_data, fl_ctx, abort_signal, kind=DataKind.METRICS, timeout_s=self.timeout_s
        )
        if abort_signal.triggered:
            return
        facts = fl_ctx.get_prop(SAMPLES)

        def check(origin: Origin, dxo: DXO) -> None:
            check_scores(dxo.data, dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND), origin, facts)

        replies.refuse(check)
        for site, reason in sorted(replies.errors.items()):
            self.log_error(fl_ctx, f"closing validation: {site} could not score the last model: {reason}")
        if replies.results:
            self._report(replies, fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to stop."""

    def process_result_of_unknown_task(self, *args: object) -> None:
        """A reply that comes too late is dropped."""

    def _report(self, replies: Replies, fl_ctx: FLContext) -> None:
        metrics = {site: numbers(dxo.data) for site, dxo in sorted(replies.results.items())}
        samples = {s: dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 0) for s, dxo in replies.results.items()}
        score = weighted_mean(metrics, samples)
        round_number = fl_ctx.get_prop(AppConstants.CURRENT_ROUND, -1) + 1
        run_dir = Path(self._engine.get_workspace().get_run_dir(fl_ctx.get_job_id()))
        progress.append(run_dir, "validation", round=round_number, sites=metrics, samples=samples)
        shown = "  ".join(f"{name} {decimals(value, 3)}" for name, value in sorted(score.items()) if not is_count(name))
        self.log_info(fl_ctx, f"closing validation after round {round_number}  {shown}  {len(metrics)} sites")
        if replies.errors:
            self.log_warning(fl_ctx, "closing validation: the score lacks sites, so it is not compared with the best")
        else:
            self._select(metrics, samples, round_number, fl_ctx)

    def _select(
        self, metrics: dict[str, dict[str, float]], samples: dict[str, float], round_number: int, fl_ctx: FLContext
    ) -> None:
        selector: IntimeModelSelector = self._engine.get_component(self.selector_id)
        key = selector.key_metric
        if not any(key in values for values in metrics.values()):
            names = sorted({name for values in metrics.values() for name in values})
            self.log_error(fl_ctx, f"closing validation: {unknown_metric(key, names).coded()}")
            return
        value, rule = _score(selector, metrics, samples)
        if (-value if selector.negate_key_metric else value) <= selector.best_val_metric:
            return
        selection = {
            "source": type(self).__name__,
            "metric_source": self.task_name,
            "key_metric": {"name": selector.key_metric, "mode": "min" if selector.negate_key_metric else "max"},
            "best_round": round_number,
            "best_metrics": {selector.key_metric: value},
            "rule": rule,
        }
        fl_ctx.set_prop(AppConstants.VALIDATION_RESULT, value, private=True, sticky=False)
        fl_ctx.set_prop(AppConstants.METRICS_SELECTION_INFO, selection, private=True, sticky=False)
        self.fire_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, fl_ctx)


def _score(
    selector: IntimeModelSelector, metrics: dict[str, dict[str, float]], samples: dict[str, float]
) -> tuple[float, str]:
    """As the selector computes it, and by what rule; FLARE's own weighs every metric by samples."""
    key = selector.key_metric
    if isinstance(selector, ModelSelector) and (score := selection_score(key, metrics, samples)) is not None:
        return score
    alone = {site: {key: values[key]} for site, values in metrics.items() if key in values}
    return weighted_mean(alone, samples)[key], ""
