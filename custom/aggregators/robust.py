# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Aggregation by a robust rule, dense or sparse, with an absolute limit of norms if one is set.

In any other job `--set aggregator=geometric_median` does the same: the rule is a setting of all aggregators here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from nvflare.apis.fl_context import FLContext

from custom.aggregators.sparse import SparseAggregator
from custom.aggregators.weighted import Update, bounded
from custom.checks.update import Origin, Tensors, is_finite_number, l2_norm
from custom.errors import BundleError
from custom.learning.robust import Rule, clip
from custom.learning.rules import WEIGHTED_MEAN
from custom.printable import shown


class RobustAggregator(SparseAggregator):
    """Combines updates by a robust rule, and checks them as CheckUpdate does, except weights.

    Memory: the updates and the result. An update is clipped as it arrives: its copy takes its place.

    Args:
        rule: as in WeightedAggregator.
        max_norm: what the norm of a larger update is scaled down to before the rule sees it; None for no limit. Running
            statistics of BatchNorm neither count nor are scaled; without a rule their entries are the sites' median.
        min_contributions, max_norm_ratio, max_samples_ratio: as in WeightedAggregator.
    """

    takes_any_rule = True

    def __init__(
        self,
        rule: Rule | str = WEIGHTED_MEAN,
        max_norm: float | None = None,
        min_contributions: int = 1,
        max_norm_ratio: float | None = 3.0,
        max_samples_ratio: float | None = None,
    ) -> None:
        super().__init__("zero_update", min_contributions, rule, max_norm_ratio, max_samples_ratio)
        self.max_norm = max_norm

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        super().check()
        if self.rule == WEIGHTED_MEAN and self.max_norm is None:
            remedy = "for the mean of all, name custom.aggregators.weighted.WeightedAggregator"
            key, expected = "RobustAggregator", "a rule or max_norm"
            raise BundleError(code="setting-value", key=key, expected=expected, got="neither", remedy=remedy)
        if self.max_norm is not None and not (is_finite_number(self.max_norm) and self.max_norm > 0):
            got = shown(self.max_norm)
            raise BundleError(
                code="setting-value", key="RobustAggregator max_norm", expected="a number above 0", got=got
            )

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
        """See SparseAggregator; with a rule, the statistics are within bounds already."""
        if self.rule == WEIGHTED_MEAN:
            contributions = bounded(contributions, (len(contributions) - 1) // 2)
        return super().mean(contributions, fl_ctx)
