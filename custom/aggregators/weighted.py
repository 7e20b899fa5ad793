# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FedAvg's weighted mean of the sites' updates (McMahan et al., 2017, https://arxiv.org/abs/1602.05629, algorithm 1).

Sums run in float64 and in site-name order, so the result does not depend on which site answers first. That is why
all updates of a round are held until the round ends: number of sites x size of the model in memory, where FLARE's
InTimeAccumulateWeightedAggregator keeps one running sum, whose last digits change with the order of arrival.

It does not look for bad values: `custom.filters.check_update.CheckUpdate` has done that before.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.aggregators.weighted_aggregation_helper import AggregationStatsKey, compute_key_match_stats
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from custom.checks.update import Origin, Tensors, UpdateRejected, check_round, check_weight, is_statistic
from custom.errors import BundleError
from custom.keys import POSITIONS
from custom.learning.robust import keep_variances
from custom.metrics import weighted_mean as mean_metrics
from custom.panic import ends_job
from custom.printable import shown

BLOCK = 8192  # entries


class Update(NamedTuple):
    """One site's accepted update, as received.

    Attributes:
        weight: number of samples.
        diff: the DXO's data.
        metrics: INITIAL_METRICS, if they are a dictionary.
        positions: of a sparse update, where the values of `diff` belong.
    """

    weight: float
    diff: Tensors
    metrics: dict[str, Any]
    positions: dict[str, Any] | None


def weighted_mean(updates: Iterable[tuple[float, Tensors]]) -> dict[str, NDArray[Any]]:
    """sum(weight * diff) / sum(weight), tensor by tensor over those that have it, in the order given.

    Args:
        updates: pairs of a weight > 0 and tensors; the tensors of one name have one shape and dtype.

    Returns:
        The mean of each tensor that occurs, in its own dtype; sums are float64.
    """
    terms: dict[str, list[tuple[float, NDArray[Any]]]] = {}
    for weight, diff in updates:
        for key, value in diff.items():
            terms.setdefault(key, []).append((weight, value))
    return {key: _mean(pairs) for key, pairs in terms.items()}


def _mean(terms: Sequence[tuple[float, NDArray[Any]]]) -> NDArray[Any]:
    """Of one tensor. In blocks that stay in the processor's cache: whole float64 copies take twice as long."""
    total = sum(weight for weight, _ in terms)
    (first_weight, first), *others = [(weight, np.ravel(value)) for weight, value in terms]
    mean = np.empty(terms[0][1].shape, terms[0][1].dtype)
    out = mean.reshape(-1)
    for start in range(0, out.size, BLOCK):
        block = slice(start, start + BLOCK)
        sums = np.multiply(first[block], first_weight, dtype=np.float64)
        for weight, values in others:
            sums += np.multiply(values[block], weight, dtype=np.float64)
        out[block] = sums / total
    return mean


class WeightedAggregator(Aggregator):
    """Averages WEIGHT_DIFFs by number of samples (NUM_STEPS_CURRENT_ROUND), and the sites' metrics with them.

    Args:
        min_contributions: the job ends if a round has fewer accepted updates, empty ones (weight 0) included.
    """

    def __init__(self, min_contributions: int = 1) -> None:
        super().__init__()
        self.min_contributions = min_contributions
        self._lock = threading.Lock()  # late results are accepted while the workflow's thread aggregates
        self._updates: dict[str, Update] = {}
        self._collected = 0  # how often the updates were taken

    def check(self) -> None:
        """Looks at the settings.

        Raises:
            BundleError: one is out of range.
        """
        value = self.min_contributions
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            key, expected = f"{type(self).__name__} min_contributions", "a whole number of at least 1"
            raise BundleError(code="setting-value", key=key, expected=expected, got=repr(value))

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Ends a job whose settings are wrong as soon as it starts; keeps the sites' facts at the server.

        FLARE puts the meta of the aggregate (total samples, mean metrics) into the global model, and so would send it
        to every site, where with two sites each could read off the other's.
        """
        if event_type == EventType.START_RUN:
            self.check_start(fl_ctx)
        elif event_type == AppEventType.AFTER_SHAREABLE_TO_LEARNABLE:
            fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.META] = {}

    def check_start(self, fl_ctx: FLContext) -> None:
        """Raises BundleError if the job cannot be run with these settings."""
        self.check()

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Keeps one site's update for `aggregate`; False, and one line in the log, if it cannot be used."""
        site = shareable.get_peer_prop(ReservedKey.IDENTITY_NAME, None)
        if site is None:
            peer = fl_ctx.get_peer_context()
            site = peer.get_identity_name() if peer else "?"
        try:
            self._store(site, shareable, fl_ctx)
        except UpdateRejected as error:
            self.log_error(fl_ctx, f"update not aggregated ({error.reason}): {error}")
            return False
        return True

    def _store(self, site: str, shareable: Shareable, fl_ctx: FLContext) -> None:
        collected = self._collected
        current_round = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        origin = Origin(site, current_round + 1)
        try:
            dxo = from_shareable(shareable)
        except ValueError as error:
            raise UpdateRejected("kind", origin, str(error)) from None
        if dxo.data_kind != DataKind.WEIGHT_DIFF:
            raise UpdateRejected("kind", origin, expected=DataKind.WEIGHT_DIFF.value, got=shown(dxo.data_kind))
        check_round(shareable.get_cookie(AppConstants.CONTRIBUTION_ROUND), current_round, origin)
        weight = check_weight(dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND), origin, max_weight=math.inf)
        self.check_content(dxo, weight, origin, fl_ctx)
        metrics = dxo.get_meta_prop(MetaKey.INITIAL_METRICS)
        metrics = metrics if isinstance(metrics, dict) else {}
        diff = self.prepare(dxo.data, origin, fl_ctx)
        with self._lock:
            if self._collected != collected:
                raise UpdateRejected("stale_round", origin, "the round was closed while this update was checked")
            if site in self._updates:
                raise UpdateRejected("duplicate", origin, "this site's update of this round was accepted before")
            self._updates[site] = Update(weight, diff, metrics, dxo.get_meta_prop(POSITIONS))

    def check_content(self, dxo: DXO, weight: float, origin: Origin, fl_ctx: FLContext) -> None:
        """Refuses what `mean` cannot use.

        Raises:
            UpdateRejected: here, a sparse update: its values lie elsewhere in every site's.
        """
        if dxo.get_meta_prop(POSITIONS) is not None:
            remedy = "to receive what Sparsify sends, name custom.aggregators.sparse.SparseAggregator as the aggregator"
            raise UpdateRejected("kind", origin, expected="a dense update", got="a sparse one", remedy=remedy)

    def prepare(self, diff: Tensors, origin: Origin, fl_ctx: FLContext) -> Tensors:
        """What is kept of an update that `check_content` has let through until the round ends; here, all as it came."""
        return diff

    def mean(self, contributions: Mapping[str, Update], fl_ctx: FLContext) -> dict[str, NDArray[Any]]:
        """The mean of the updates with a weight above 0; site name to update, in name order."""
        return weighted_mean((update.weight, update.diff) for update in contributions.values())

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """The weighted mean as a WEIGHT_DIFF; an empty one, which changes nothing, if nobody had data to train on."""
        with self._lock:
            accepted = dict(sorted(self._updates.items()))
            self._updates = {}
            self._collected += 1
        contributions = {site: update for site, update in accepted.items() if update.weight > 0}
        self._publish_stats(contributions, fl_ctx)
        if len(accepted) < self.min_contributions:
            self.system_panic(self._too_few(list(accepted), fl_ctx), fl_ctx)
            return DXO(DataKind.WEIGHT_DIFF, data={}).to_shareable()
        if not contributions:
            self.log_warning(fl_ctx, "no site had anything to contribute; the global model stays as it is")
        diff = self.mean(contributions, fl_ctx)
        if any(map(is_statistic, diff)):  # rounded on their way, as float16, they may fall below zero
            keep_variances(diff, fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS])
        return DXO(DataKind.WEIGHT_DIFF, data=diff, meta=_meta(contributions)).to_shareable()

    def reset(self, fl_ctx: FLContext) -> None:
        with self._lock:
            self._updates = {}
            self._collected += 1

    def _publish_stats(self, contributions: dict[str, Update], fl_ctx: FLContext) -> None:
        # In every round, whatever happens: ScatterAndGather keeps one context, and old stats would be read again.
        stats = compute_key_match_stats({site: update.diff.keys() for site, update in contributions.items()})
        stats[AggregationStatsKey.ROUND] = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        fl_ctx.set_prop(AppConstants.AGGREGATION_STATS, stats, private=True, sticky=False)

    def _too_few(self, sites: list[str], fl_ctx: FLContext) -> str:
        current_round = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        saved = "No round was completed, so no trained model was saved."
        if current_round > fl_ctx.get_prop(AppConstants.START_ROUND, 0):
            saved = "The last good model stays saved in the server's run folder."
        return (
            f"round {current_round + 1}: {len(sites)} usable update(s) ({', '.join(sites) or 'none'}), but "
            f"min_contributions is {self.min_contributions}, so the job ends here. {saved} The log's lines with "
            "'update refused' or 'failed' say what was wrong with the other sites."
        )


def _meta(contributions: dict[str, Update]) -> dict[str, Any]:
    """Total weight and mean metrics, as plain floats: FLARE's persistor writes them into the checkpoint."""
    weights = {site: update.weight for site, update in contributions.items()}
    numbers = {
        site: {name: float(value) for name, value in update.metrics.items() if isinstance(value, Real)}
        for site, update in contributions.items()
    }
    meta: dict[str, Any] = {MetaKey.NUM_STEPS_CURRENT_ROUND: sum(weights.values())}
    if means := mean_metrics(numbers, weights):
        meta[MetaKey.INITIAL_METRICS] = means
    return meta
