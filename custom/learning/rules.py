# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The aggregation rules that have a name of one word: `--set aggregator=geometric_median`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from custom.errors import BundleError
from custom.learning.coordinate_wise import Median, TrimmedMean
from custom.learning.geometric_median import GeometricMedian
from custom.learning.krum import Krum
from custom.learning.mean_without_outliers import MeanWithoutOutliers
from custom.learning.robust import Rule

WEIGHTED_MEAN = "weighted_mean"  # FedAvg's
RULES: dict[str, Callable[[], Rule | None]] = {
    WEIGHTED_MEAN: lambda: None,
    "mean_without_outliers": MeanWithoutOutliers,
    "geometric_median": GeometricMedian,
    "median": Median,
    "trimmed_mean": TrimmedMean,
    "multi_krum": lambda: Krum(chosen=None),
}


def built(rule: Any, key: str = "rule") -> Rule | None:
    """The rule of that name, or the component itself; None for the weighted mean.

    Raises:
        BundleError: it is neither.
    """
    if isinstance(rule, str) and rule in RULES:
        return RULES[rule]()
    if not callable(rule) or not hasattr(rule, "check"):
        expected = f'{", ".join(RULES)}, or {{"path": ..., "args": {{...}}}} of a rule'
        raise BundleError(code="setting-value", key=key, expected=expected, got=f"{rule!r:.80}")
    return rule
