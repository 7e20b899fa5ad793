# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FedAvg's mean without the sites that stand out, round after round.

Robust rules judge each round by itself, and pay for it where honest sites differ. Evidence over rounds tells a site
that differs from one that does harm (learning from history: Karimireddy et al. 2021, https://arxiv.org/abs/2012.10333).
Here it is that of `custom.checks.outliers`.
"""

from __future__ import annotations

import numpy as np

from custom.checks.round import median_of_others
from custom.errors import BundleError
from custom.learning.robust import LinearRule, Matrix, Vector

MOST_SAMPLES = 3.0


class MeanWithoutOutliers(LinearRule):
    """The mean by number of samples of the sites that do not stand out, each number bounded by those of the others.

    Tolerates fewer than half of the sites, as far as what they send stands out: it promises nothing against updates
    that are made to look honest.

    Args:
        max_samples_ratio: what a site's number of samples counts at most, in medians of the others' numbers.
    """

    leaves_out_outliers = True

    def __init__(self, max_samples_ratio: float = MOST_SAMPLES) -> None:
        self.max_samples_ratio = max_samples_ratio

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        value = self.max_samples_ratio
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < np.inf:
            expected = "a number of at least 1"
            raise BundleError(code="setting-value", key="max_samples_ratio", expected=expected, got=repr(value))

    def shares(self, products: Matrix, weights: Vector) -> Vector:
        """See `custom.learning.robust.LinearRule`."""
        counted = np.fmin(weights, self.max_samples_ratio * median_of_others(weights))
        return np.asarray(counted / counted.sum())
