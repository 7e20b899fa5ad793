# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Aggregation that a few hostile sites cannot lead astray: FLARE's adapter for the rules of `custom.learning`.

CheckUpdate refuses what is broken; a site can still send plausible numbers that do harm. Robust rules bear those, at a
price: on sites whose data differ, an honest update can be as far from the others as a hostile one, and is left out.

Sparse updates are refused: where each site sends other entries, most of the values of an entry are missing, and a
median over zeros is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvflare.apis.dxo import DXO
from nvflare.apis.fl_context import FLContext

from custom import progress
from custom.aggregators.weighted import Update, WeightedAggregator
from custom.checks.update import Origin, Tensors, is_finite_number, l2_norm
from custom.errors import BundleError
from custom.filters.check_update import check_content, global_model
from custom.learning.robust import Rule, bound_statistics, clip, distances
from custom.printable import shown

REMEDY = "a smaller byzantine, more sites, or another rule would do"


class TooFewUpdates(BundleError):
    """A round in which the rule's promise does not hold."""


class RobustAggregator(WeightedAggregator):
    """Combines dense WEIGHT_DIFFs by a robust rule, and checks them as CheckUpdate does, except weights and norms.

    A round with too few updates for the rule leaves the global model as it is, and says so in the log and the report; a
    job with too few sites for it ends at its start. Metrics are averaged by number of samples, as ever.

    Memory: the updates and the result. An update is clipped as it arrives: its copy takes its place.

    Args:
        rule: a component by its path, such as `custom.learning.coordinate_wise.TrimmedMean`, or your own
            (`custom.learning.robust.Rule`); the weighted mean if it is None.
        max_norm: what the norm of a larger update is scaled down to before the rule sees it; None for no limit. Running
            statistics of BatchNorm neither count nor are scaled; without a rule their entries are the sites' median.
        min_contributions: as in WeightedAggregator.
    """

    def __init__(self, rule: Rule | None = None, max_norm: float | None = None, min_contributions: int = 1) -> None:
        super().__init__(min_contributions)
        self.rule, self.max_norm = rule, max_norm

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        super().check()
        if self.rule is None and self.max_norm is None:
            remedy = "for the mean of all, name custom.aggregators.weighted.WeightedAggregator"
            raise BundleError(
                code="setting-value",
                key="RobustAggregator",
                expected="a rule or max_norm",
                got="neither",
                remedy=remedy,
            )
        if self.max_norm is not None and not (is_finite_number(self.max_norm) and self.max_norm > 0):
            got = shown(self.max_norm)
            raise BundleError(
                code="setting-value", key="RobustAggregator max_norm", expected="a number above 0", got=got
            )
        unbuilt = isinstance(self.rule, dict) and "path" in self.rule  # `bundle export` looks before FLARE
        if self.rule is not None and not unbuilt:
            if not callable(self.rule) or not hasattr(self.rule, "check"):
                expected = '{"path": ..., "args": {...}} of a rule'
                raise BundleError(
                    code="setting-value", key="RobustAggregator rule", expected=expected, got=shown(self.rule)
                )
            self.rule.check()

    def check_start(self, fl_ctx: FLContext) -> None:
        """Also raises TooFewUpdates if the sites are too few for the rule."""
        super().check_start(fl_ctx)
        if self.rule is not None:
            _check_number(self.rule, [client.name for client in fl_ctx.get_engine().get_clients()])

    def check_content(self, dxo: DXO, weight: float, origin: Origin, fl_ctx: FLContext) -> None:
        """Refuses a sparse update, and one that does not fit the global model or is not finite.

        Raises:
            UpdateRejected: names site, round and tensor.
        """
        super().check_content(dxo, weight, origin, fl_ctx)
        model, _ = global_model(origin.site, fl_ctx)
        check_content(dxo, weight, model, origin)

    def prepare(self, diff: Tensors, origin: Origin, fl_ctx: FLContext) -> Tensors:
        """The update, clipped; a line in the log if it had to be."""
        if self.max_norm is None:
            return diff
        norm = l2_norm(diff)
        if norm > self.max_norm:
            found = f"update of {origin.site} clipped from norm {norm:.4g} to {self.max_norm:g}"
            self.log_info(fl_ctx, f"round {origin.round_number}: {found}")
        return clip(diff, norm, self.max_norm)

    def mean(self, contributions: Mapping[str, Update], fl_ctx: FLContext) -> dict[str, NDArray[Any]]:
        """What the rule makes of the updates; empty, which changes nothing, if they are too few for it."""
        if not contributions:
            return {}
        try:
            return self._combine(contributions, fl_ctx)
        except TooFewUpdates as error:
            self._warn(f"{error}. The global model stays as it is", fl_ctx)
            return {}

    def _combine(self, contributions: Mapping[str, Update], fl_ctx: FLContext) -> dict[str, NDArray[Any]]:
        _, current_round = global_model("", fl_ctx)
        diffs = [update.diff for update in contributions.values()]
        if self.rule is None:
            bounded = bound_statistics(diffs, (len(diffs) - 1) // 2)
            pairs = zip(contributions.items(), bounded, strict=True)
            held = {site: update._replace(diff=diff) for (site, update), diff in pairs}
            return super().mean(held, fl_ctx)
        round_number = current_round + 1
        _check_number(self.rule, list(contributions), round_number)
        result = self.rule(diffs, [update.weight for update in contributions.values()])
        found = f"{type(self.rule).__name__} of {len(diffs)} updates"
        away = _by_site(contributions, distances(diffs, result))
        self.log_info(fl_ctx, f"round {round_number}: {found}; distances from it: {away}")
        return result

    def _warn(self, reason: str, fl_ctx: FLContext) -> None:
        self.log_error(fl_ctx, reason)
        run_dir = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id())
        progress.append(Path(run_dir), "warning", reason=reason)


def _by_site(contributions: Mapping[str, Update], values: NDArray[np.float64]) -> str:
    return "  ".join(f"{site} {value:.4g}" for site, value in zip(contributions, values, strict=True))


def _check_number(rule: Rule, sites: list[str], round_number: int | None = None) -> None:
    """Raises TooFewUpdates if one update of each of these sites is less than the rule needs."""
    if len(sites) < rule.min_updates:
        key, expected = f"{type(rule).__name__} updates a round", f"at least {rule.min_updates}"
        got = f"{len(sites)} ({', '.join(sites)})"
        raise TooFewUpdates(
            code="too-few-updates", round_number=round_number, key=key, expected=expected, got=got, remedy=REMEDY
        )
