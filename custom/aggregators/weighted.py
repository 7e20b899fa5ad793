# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FedAvg's weighted mean of the sites' updates (McMahan et al., 2017, https://arxiv.org/abs/1602.05629, algorithm 1).

When a round closes, each update is compared with the others, clipped to a limit that the others' norms set, and
combined by the mean or a robust rule. Which site stands out is in the log and in the round's line of progress.jsonl.

Sums run in float64 and in site-name order, so the result does not depend on which site answers first. That is why
all updates of a round are held until the round ends: number of sites x size of the model in memory, where FLARE's
InTimeAccumulateWeightedAggregator keeps one running sum, whose last digits change with the order of arrival.

It does not look for bad values: `custom.filters.check_update.CheckUpdate` has done that before.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

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

from custom import progress
from custom.checks.outliers import Outliers
from custom.checks.round import Standing, Vector, median_of_others, norm_limits, standings
from custom.checks.update import (
    Origin,
    Tensors,
    UpdateRejected,
    check_round,
    check_weight,
    is_finite_number,
    is_statistic,
    l2_norm,
)
from custom.errors import BundleError
from custom.keys import POSITIONS, SAMPLES, STANDINGS
from custom.learning.robust import (
    LinearRule,
    Matrix,
    Rule,
    bound_statistics,
    clip,
    inner_products,
    keep_variances,
    side_by_side,
)
from custom.learning.rules import WEIGHTED_MEAN, built
from custom.metrics import weighted_mean as mean_metrics
from custom.panic import ends_job
from custom.printable import shown

BLOCK = 8192  # entries


REMEDY = "a smaller byzantine, more sites, or another rule would do"


class TooFewUpdates(BundleError):
    """A round in which the rule's promise does not hold."""


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

    A round with too few updates for a robust rule leaves the global model as it is, and says so in the log and the
    report; a job with too few sites for it ends at its start. Metrics are averaged by number of samples, as ever.

    Args:
        min_contributions: the job ends if a round has fewer accepted updates, empty ones (weight 0) included.
        rule: how the updates are combined: a word of `custom.learning.rules.RULES`, or a component by its path
            (`custom.learning.robust.Rule`).
        max_norm_ratio: an update of a larger norm than so many times the median of the others' is scaled down to that;
            for a site with more samples than the others the limit is higher, up to ten times. The same for BatchNorm's
            running statistics by themselves. None for no limit.
        max_samples_ratio: what a site's number of samples counts at most, in medians of the others' numbers; None for
            what it says.
    """

    also_called: ClassVar = {"aggregator": "rule"}  # `--set aggregator=geometric_median`, see bundle.settings

    def __init__(
        self,
        min_contributions: int = 1,
        rule: Rule | str = WEIGHTED_MEAN,
        max_norm_ratio: float | None = 3.0,
        max_samples_ratio: float | None = None,
    ) -> None:
        super().__init__()
        self.min_contributions, self.rule = min_contributions, rule
        self.max_norm_ratio, self.max_samples_ratio = max_norm_ratio, max_samples_ratio
        self._lock = threading.Lock()  # late results are accepted while the workflow's thread aggregates
        self._updates: dict[str, Update] = {}
        self._collected = 0  # how often the updates were taken
        self._outliers = Outliers()

    def check(self) -> None:
        """Looks at the settings.

        Raises:
            BundleError: one is out of range.
        """
        value, name = self.min_contributions, type(self).__name__
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            key, expected = f"{name} min_contributions", "a whole number of at least 1"
            raise BundleError(code="setting-value", key=key, expected=expected, got=repr(value))
        for key in ("max_norm_ratio", "max_samples_ratio"):
            ratio = getattr(self, key)
            if ratio is not None and not (is_finite_number(ratio) and not isinstance(ratio, bool) and ratio >= 1):
                expected = "a number of at least 1, or null for no limit"
                raise BundleError(code="setting-value", key=f"{name} {key}", expected=expected, got=shown(ratio))
        unbuilt = isinstance(self.rule, dict) and "path" in self.rule  # `bundle export` looks before FLARE
        if not unbuilt and (rule := built(self.rule, f"{name} rule")) is not None:
            rule.check()

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Ends a job whose settings are wrong as soon as it starts; keeps the sites' facts at the server.

        FLARE puts the meta of the aggregate (total samples, mean metrics) into the global model, and so would send it
        to every site, where with two sites each could read off the other's.
        """
        if event_type == EventType.START_RUN:
            self._outliers = Outliers()
            self.check_start(fl_ctx)
        elif event_type == AppEventType.ROUND_STARTED:
            check_samples(fl_ctx.get_prop(SAMPLES) or {})
        elif event_type == AppEventType.AFTER_SHAREABLE_TO_LEARNABLE:
            fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.META] = {}

    def check_start(self, fl_ctx: FLContext) -> None:
        """Raises BundleError if the job cannot be run with these settings, or with so few sites."""
        self.check()
        if (rule := built(self.rule)) is not None:
            check_number(rule, [client.name for client in fl_ctx.get_engine().get_clients()])

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Keeps one site's update for `aggregate`; False, and one line in the log, if it cannot be used."""
        site = shareable.get_peer_prop(ReservedKey.IDENTITY_NAME, None)
        if site is None:
            peer = fl_ctx.get_peer_context()
            site = peer.get_identity_name() if peer else "?"
        try:
            self._store(site, shareable, fl_ctx)
        except UpdateRejected as error:
            self.log_error(fl_ctx, f"update not aggregated ({error.reason}): {error.coded()}")
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

    def rows(self, contributions: Mapping[str, Update], fl_ctx: FLContext) -> Iterator[NDArray[Any]]:
        """The updates side by side, without running statistics; see `custom.learning.robust.side_by_side`."""
        return side_by_side([update.diff for update in contributions.values()])

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
        diff = self._combine(contributions, fl_ctx) if contributions else {}
        if any(map(is_statistic, diff)):  # rounded on their way, as float16, they may fall below zero
            keep_variances(diff, fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS])
        return DXO(DataKind.WEIGHT_DIFF, data=diff, meta=_meta(contributions)).to_shareable()

    def reset(self, fl_ctx: FLContext) -> None:
        with self._lock:
            self._updates = {}
            self._collected += 1

    def _combine(self, contributions: Mapping[str, Update], fl_ctx: FLContext) -> dict[str, NDArray[Any]]:
        """What limits and rule make of the updates; empty, which changes nothing, if they are too few for it."""
        current_round = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        products = inner_products(self.rows(contributions, fl_ctx), len(contributions))
        samples = np.array([update.weight for update in contributions.values()])
        contributions, factors = self._clipped(contributions, np.sqrt(np.diag(products)), samples, current_round)
        most = np.inf if self.max_samples_ratio is None else self.max_samples_ratio * median_of_others(samples)
        weights = np.fmin(samples, most)
        self._tell(standings(products, samples), list(contributions), factors, fl_ctx)
        rule = built(self.rule)
        try:
            if rule is not None:
                check_number(rule, list(contributions), current_round + 1)
        except TooFewUpdates as error:
            self._warn(f"{error.coded()}. The global model stays as it is", fl_ctx)
            return {}
        if rule is not None and not isinstance(rule, LinearRule):
            return rule([update.diff for update in contributions.values()], weights.tolist())
        if rule is not None:
            weights = self._shares(rule, list(contributions), products * np.outer(factors, factors), weights)
            contributions = bounded(contributions, rule.tolerated(len(weights)))
        pairs = zip(contributions.items(), weights.tolist(), strict=True)
        counted = {site: update._replace(weight=weight) for (site, update), weight in pairs if weight > 0}
        return self.mean(counted, fl_ctx)

    def _shares(self, rule: LinearRule, sites: list[str], products: Matrix, weights: Vector) -> Vector:
        """[n] what each update counts; 0 for those that stand out, if the rule leaves them out."""
        kept = np.array([site not in self._outliers.standing_out for site in sites])
        if not rule.leaves_out_outliers or 2 * kept.sum() <= len(kept):
            return rule.shares(products, weights)
        shares = np.zeros(len(sites))
        shares[kept] = rule.shares(products[np.ix_(kept, kept)], weights[kept])
        return shares

    def _clipped(
        self, contributions: Mapping[str, Update], norms: Vector, samples: Vector, current_round: int
    ) -> tuple[dict[str, Update], Vector]:
        """The updates within their limits, and [n] by what each was multiplied."""
        result, factors = dict(contributions), np.ones(len(norms))
        if self.max_norm_ratio is None:
            return result, factors
        limits = norm_limits(norms, samples, self.max_norm_ratio)
        statistics = np.array([l2_norm(update.diff, statistics=True) for update in contributions.values()])
        statistics_limits = norm_limits(statistics, np.ones(len(norms)), self.max_norm_ratio)
        for k, (site, update) in enumerate(contributions.items()):
            diff = clip(update.diff, norms[k], limits[k])
            diff = clip(diff, statistics[k], statistics_limits[k], statistics=True)
            if diff is not update.diff:
                result[site], factors[k] = update._replace(diff=diff), min(1.0, limits[k] / norms[k])
                found = f"norm {norms[k]:.4g} to {min(norms[k], limits[k]):.4g}"
                if statistics[k] > statistics_limits[k]:
                    found += f", its running statistics from {statistics[k]:.4g} to {statistics_limits[k]:.4g}"
                self.logger.info(f"round {current_round + 1}: update of {site} clipped from {found}")
        return result, factors

    def _tell(self, found: Sequence[Standing], sites: list[str], factors: Vector, fl_ctx: FLContext) -> None:
        """Puts how the sites stand into the context, for ProgressLog, and into the log whoever stands out."""
        facts = {}
        for site, standing, factor in zip(sites, found, factors, strict=True):
            facts[site] = standing.to_json() | ({"clipped_to": float(standing.norm * factor)} if factor < 1 else {})
        fl_ctx.set_prop(STANDINGS, facts, private=True, sticky=False)
        for outlier in self._outliers.add(f"round {fl_ctx.get_prop(AppConstants.CURRENT_ROUND) + 1}", facts):
            self.log_warning(fl_ctx, outlier.sentence)

    def _warn(self, reason: str, fl_ctx: FLContext) -> None:
        self.log_error(fl_ctx, reason)
        run_dir = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id())
        progress.append(Path(run_dir), "warning", reason=reason)

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


def check_samples(samples: Mapping[str, Mapping[str, int]]) -> None:
    """Raises BundleError if no site said that it has anything to train on; `samples` by site, as they said it."""
    if samples and not any(counts.get("train", 1) for counts in samples.values()):
        expected, got = "a site with training samples", f"0 in all at {', '.join(sorted(samples))}"
        remedy = "see each site's log for what its data hold, and where they were looked for"
        raise BundleError(code="data-too-small", key="train", expected=expected, got=got, remedy=remedy)


def bounded(contributions: Mapping[str, Update], bad: int) -> dict[str, Update]:
    """The updates with their running statistics drawn into the range of the others, see `bound_statistics`."""
    diffs = bound_statistics([update.diff for update in contributions.values()], bad)
    pairs = zip(contributions.items(), diffs, strict=True)
    return {site: update._replace(diff=diff) for (site, update), diff in pairs}


def check_number(rule: Rule, sites: list[str], round_number: int | None = None) -> None:
    """Raises TooFewUpdates if one update of each of these sites is less than the rule needs."""
    if len(sites) < rule.min_updates:
        key, expected = f"{type(rule).__name__} updates a round", f"at least {rule.min_updates}"
        got = f"{len(sites)} ({', '.join(sites)})"
        raise TooFewUpdates(
            code="too-few-updates", round_number=round_number, key=key, expected=expected, got=got, remedy=REMEDY
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
