# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The geometric median of updates by smoothed Weiszfeld (Pillutla et al. 2019, RFA; https://arxiv.org/abs/1912.13445).

The point v that minimises sum_k alpha_k ||v - w_k||. In the paper alpha_k is a site's number of samples. A site says
that itself, so here each site counts once, unless it is set otherwise.
"""

from __future__ import annotations

import numpy as np

from custom.checks.numbers import check_counts
from custom.errors import BundleError
from custom.learning.robust import LinearRule, Matrix, Vector, distances_from, squared_distances

SMOOTHING = 1e-6  # the paper's nu, as a part of the median distance: no distance counts as less
TOLERANCE = 1e-6  # relative change of every share at which v stands still
NOTHING = 1e-150  # stands for 0 in a division


class GeometricMedian(LinearRule):
    """Tolerates fewer than half of the sites, or less than half of the samples where sites count by samples.

    Running statistics have no part in distances; each of their entries is the sites' median.

    Args:
        max_iterations: of Weiszfeld, unless it stands still before.
        weigh_by_samples: whether a site counts by its number of samples, which it says itself.
    """

    min_updates = 3  # between two, every point has the same sum of distances

    def __init__(self, max_iterations: int = 1000, weigh_by_samples: bool = False) -> None:
        self.max_iterations, self.weigh_by_samples = max_iterations, weigh_by_samples

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_counts(max_iterations=self.max_iterations)
        if not isinstance(self.weigh_by_samples, bool):
            raise BundleError(
                code="setting-value", key="weigh_by_samples", expected="true or false", got=repr(self.weigh_by_samples)
            )

    def shares(self, products: Matrix, weights: Vector) -> Vector:
        """See `custom.learning.robust.LinearRule`."""
        alphas = weights if self.weigh_by_samples else np.ones(len(weights))
        return weiszfeld(products, alphas, start(products, alphas), self.max_iterations)


def weiszfeld(products: Matrix, alphas: Vector, shares: Vector, max_iterations: int) -> Vector:
    """v <- sum_k beta_k w_k / sum_k beta_k with beta_k = alpha_k / max(nu, ||v - w_k||), again and again.

    v is only ever there as sum_k s_k w_k.

    Args:
        products: [n, n] inner products of the w_k.
        alphas: [n] weights.
        shares: [n] s_k of the v that it begins with.
        max_iterations: how often.

    Returns:
        [n] s_k.
    """
    for _ in range(max_iterations):
        reach = distances_from(shares, products)
        least = max(SMOOTHING * float(np.median(reach)), NOTHING)
        before, shares = shares, _normalised(alphas / np.maximum(least, reach))
        if np.allclose(shares, before, rtol=TOLERANCE, atol=0):
            break
    return shares


def start(products: Matrix, alphas: Vector) -> Vector:
    """v at first, which the paper leaves open: each update counts by how near the others are.

    From where one update of norm 1e30 leads the mean itself, a hundred iterations would lead back. From 0, or any other
    place that can be one of the updates, no number of them leads away, because its distance is the smallest there is.
    """
    to_others = np.sqrt(squared_distances(products)) @ alphas
    return _normalised(alphas / np.maximum(to_others, NOTHING))


def _normalised(betas: Vector) -> Vector:
    return np.asarray(betas / betas.sum())
