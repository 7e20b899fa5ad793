# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Selects the best global model by a validation metric, whether high or low is good; no site can choose it alone.

FLARE's IntimeModelSelector takes a high value for good, also of a loss, weighs every metric by samples, counts updates
that the aggregator then refuses, and only logs that a metric is unknown. This one goes by
`custom.metrics.selection_score`: with three or more sites their trimmed mean, with fewer the mean of the report's
table.
The report shows the table's mean of the best round, and beside it the trimmed mean by which it was chosen.
"""

from __future__ import annotations

from typing import Any

from nvflare.apis.dxo import MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.widgets.intime_model_selector import IntimeModelSelector

from custom.errors import BundleError
from custom.metrics import check_direction, lower_is_better, selection_score, unknown_metric
from custom.panic import ends_job
from custom.printable import decimals
from custom.widgets.progress_log import numbers


class ModelSelector(IntimeModelSelector):
    """Fires GLOBAL_BEST_MODEL_AVAILABLE when the model that the sites received is the best so far.

    Args:
        key_metric: of the sites' INITIAL_METRICS.
        negate_key_metric: whether a low value is good; null: as is known of the metric (`custom.metrics`).
        weigh_by_local_iter: must be true; the mean of fewer than three sites is weighted as in the report.
    """

    agrees = ("key_metric",)  # with ProgressLog
    best_val_metric: float  # FLARE's; negated if a low value is good

    def __init__(
        self,
        key_metric: str = "val_accuracy",
        negate_key_metric: bool | None = None,
        weigh_by_local_iter: bool = True,
    ) -> None:
        lower = lower_is_better(str(key_metric)) if negate_key_metric is None else negate_key_metric
        super().__init__(weigh_by_local_iter, key_metric=str(key_metric), negate_key_metric=bool(lower))
        self.best_val_metric: float  # which FLARE sets when a run starts
        self._given = (key_metric, negate_key_metric)
        self._metrics: dict[str, dict[str, float]] = {}
        self._samples: dict[str, float] = {}
        self._reported = False  # has any site ever reported the key metric?

    def check(self) -> None:
        """Raises BundleError if a setting is of another type or contradicts what is known of the metric."""
        metric, negate = self._given
        if not isinstance(metric, str) or not metric:
            raise BundleError(code="setting-value", key="key_metric", expected="the name of a metric", got=repr(metric))
        if self.weigh_by_local_iter is not True:
            got = repr(self.weigh_by_local_iter)
            raise BundleError(code="setting-value", key="weigh_by_local_iter", expected="true", got=got)
        if negate is not None and not isinstance(negate, bool):
            got = repr(negate)
            raise BundleError(code="setting-value", key="negate_key_metric", expected="true, false or null", got=got)
        check_direction(metric, negate)

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Collects the scores of a round and compares their mean before the updates are aggregated."""
        if event_type == EventType.START_RUN:
            self.check()
        elif event_type == AppEventType.ROUND_STARTED:
            self._metrics, self._samples = {}, {}
        elif event_type == AppEventType.AFTER_CONTRIBUTION_ACCEPT:
            self._collect(fl_ctx)
        elif event_type == AppEventType.BEFORE_AGGREGATION:
            self._compare(fl_ctx)

    def _collect(self, fl_ctx: FLContext) -> None:
        if not fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED, True):
            return
        result = from_shareable(fl_ctx.get_prop(AppConstants.TRAINING_RESULT))
        received = result.get_meta_prop(MetaKey.INITIAL_METRICS)
        site = fl_ctx.get_peer_context().get_identity_name()
        self._metrics[site] = numbers(received if isinstance(received, dict) else {self.key_metric: received})
        self._samples[site] = float(result.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 0))

    def _compare(self, fl_ctx: FLContext) -> None:
        metrics, samples, self._metrics, self._samples = self._metrics, self._samples, {}, {}
        names = sorted({name for site in metrics.values() for name in site})
        self._reported = self._reported or self.key_metric in names
        if names and not self._reported:
            self.system_panic(unknown_metric(self.key_metric, names).coded(), fl_ctx)
            return
        current_round = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        score = selection_score(self.key_metric, metrics, samples)
        if current_round == 0 or score is None:  # the model of round 0 has not been trained
            return
        value, rule = score
        self.raw_val_metric, self.val_metric = value, -value if self.negate_key_metric else value
        if self.val_metric <= self.best_val_metric:
            return
        self.best_val_metric, self.best_raw_val_metric = self.val_metric, value
        by = f" ({rule})" if rule else ""
        self.log_info(fl_ctx, f"new best model after round {current_round}: {self.key_metric} {decimals(value, 4)}{by}")
        info: dict[str, Any] = {**self._make_metrics_selection_info(current_round), "rule": rule}
        fl_ctx.set_prop(AppConstants.VALIDATION_RESULT, self.best_val_metric, private=True, sticky=False)
        fl_ctx.set_prop(AppConstants.METRICS_SELECTION_INFO, info, private=True, sticky=False)
        self.fire_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, fl_ctx)
