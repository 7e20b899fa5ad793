# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The geometric median of updates by smoothed Weiszfeld (Pillutla et al. 2019, RFA; https://arxiv.org/abs/1912.13445).

The point v that minimises sum_k alpha_k ||v - w_k||, with weights alpha_k by number of samples, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from custom.errors import BundleError
from custom.learning.coordinate_wise import Median
from custom.learning.robust import Array, Tensors, bound_statistics, combine, distances, measured, pieces
from custom.learning.train import check_counts

Vector = NDArray[np.float64]
SMOOTHING = 1e-6  # the paper's nu: no distance counts as less
TOLERANCE = 1e-4  # relative change of every share at which v stands still


class GeometricMedian:
    """Bears less than half of the weight bad; of equal ones, fewer than half of the sites.

    Running statistics have no part in distances; each of their entries is the sites' median.

    Args:
        max_iterations: passes over all updates, unless it stands still before.
        weigh_by_samples: whether a site counts by its number of samples. It says so itself: where that cannot be
            trusted, each site counts once.
    """

    min_updates = 3  # between two, every point has the same sum of distances

    def __init__(self, max_iterations: int = 10, weigh_by_samples: bool = True) -> None:
        self.max_iterations, self.weigh_by_samples = max_iterations, weigh_by_samples

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_counts(max_iterations=self.max_iterations)
        if not isinstance(self.weigh_by_samples, bool):
            raise BundleError(
                code="setting-value", key="weigh_by_samples", expected="true or false", got=repr(self.weigh_by_samples)
            )

    def __call__(self, updates: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Array]:
        """See `custom.learning.robust.Rule`."""
        alphas = np.array(weights if self.weigh_by_samples else [1.0] * len(weights))
        shares = weiszfeld(updates, alphas, _start(updates, alphas), self.max_iterations)
        return combine(bound_statistics(updates, (len(updates) - 1) // 2), shares.tolist())


def weiszfeld(updates: Sequence[Tensors], alphas: Vector, shares: Vector, max_iterations: int) -> Vector:
    """v <- sum_k beta_k w_k / sum_k beta_k with beta_k = alpha_k / max(nu, ||v - w_k||), again and again.

    v is only ever there in pieces, as sum_k s_k w_k.

    Args:
        updates: n of them, the w_k.
        alphas: [n] weights.
        shares: [n] s_k of the v that it begins with.
        max_iterations: passes over the updates.

    Returns:
        [n] s_k.
    """
    for _ in range(max_iterations):
        before, shares = shares, _normalised(alphas / np.maximum(SMOOTHING, _distances(updates, shares)))
        if np.allclose(shares, before, rtol=TOLERANCE, atol=0):
            break
    return shares


def _start(updates: Sequence[Tensors], alphas: Vector) -> Vector:
    """v at first, which the paper leaves open: the mean of the updates, drawn in to a ball around their median.

    From where one update of norm 1e30 leads the mean itself, a hundred iterations would lead back. From 0, or any other
    place that can be one of the updates, no number of them leads away, because its distance is the smallest there is.
    """
    reach = distances(updates, Median()(updates, alphas.tolist()))
    return _normalised(alphas / np.maximum(max(SMOOTHING, float(np.median(reach))), reach))


def _normalised(betas: Vector) -> Vector:
    return np.asarray(betas / betas.sum())


def _distances(updates: Sequence[Tensors], shares: Vector) -> Vector:
    """[n] ||v - w_k||."""
    squares = np.zeros(len(updates))
    for name in measured(updates[0]):
        for _, rows in pieces([update[name] for update in updates]):
            rows -= shares @ rows
            squares += np.einsum("kj,kj->k", rows, rows)
    return np.sqrt(squares)
