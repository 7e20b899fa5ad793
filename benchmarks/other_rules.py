# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Robust rules of the literature that the bundle does not ship, to be measured beside those that it does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from custom.learning.geometric_median import GeometricMedian
from custom.learning.robust import Array, LinearRule, Tensors, combine, pieces


def norm(tensors: Tensors) -> float:
    """Euclidean, of all tensors together."""
    return float(np.sqrt(sum(np.vdot(value, value).real for value in tensors.values())))


class CentredClipping:
    """Karimireddy et al. 2021, "Learning from History" (https://arxiv.org/abs/2012.10333), without sites' momentum.

    v <- v + mean_k (u_k - v) min(1, radius / ||u_k - v||), from the result of the round before. Sites count alike. The
    paper sets the radius by hand; here it is the median of the distances.

    Args:
        iterations: of each round.
    """

    min_updates = 3

    def __init__(self, iterations: int = 3) -> None:
        self.iterations = iterations
        self.last: dict[str, Array] = {}

    def check(self) -> None:
        """There is nothing to set."""

    def __call__(self, updates: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Array]:
        """See `custom.learning.robust.Rule`."""
        centre = self.last or {name: np.zeros_like(value) for name, value in updates[0].items()}
        for _ in range(self.iterations):
            away = [{name: update[name] - value for name, value in centre.items()} for update in updates]
            norms = np.maximum([norm(one) for one in away], 1e-30)
            step = combine(away, (np.minimum(1, np.median(norms) / norms) / len(updates)).tolist())
            centre = {name: value + step[name] for name, value in centre.items()}
        self.last = centre
        return centre


class WeightedMedian:
    """Of each entry, the value at which half of the claimed samples are reached."""

    min_updates = 3

    def check(self) -> None:
        """There is nothing to set."""

    def __call__(self, updates: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Array]:
        """See `custom.learning.robust.Rule`."""
        result = {}
        for name, like in updates[0].items():
            median = np.empty(like.size, like.dtype)
            for where, rows in pieces([update[name] for update in updates]):
                order = np.argsort(rows, axis=0)
                reached = np.cumsum(np.asarray(weights)[order], axis=0) >= sum(weights) / 2
                median[where] = np.take_along_axis(rows, order, 0)[reached.argmax(axis=0), np.arange(rows.shape[1])]
            result[name] = median.reshape(like.shape)
        return result


class Bucketing:
    """Another rule on means of two updates each (Karimireddy et al. 2022, https://arxiv.org/abs/2006.09365).

    Args:
        rule: what combines the means; geometric median if None.
        seed: of the order in which updates are put together.
    """

    min_updates = 3

    def __init__(self, rule: LinearRule | None = None, seed: int = 0) -> None:
        self.rule, self._generator = rule or GeometricMedian(), np.random.default_rng(seed)

    def check(self) -> None:
        """There is nothing to set."""

    def __call__(self, updates: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Array]:
        """See `custom.learning.robust.Rule`."""
        order = self._generator.permutation(len(updates))
        buckets = [[updates[place] for place in order[start : start + 2]] for start in range(0, len(order), 2)]
        return self.rule([combine(bucket, [1 / len(bucket)] * len(bucket)) for bucket in buckets], [1] * len(buckets))


OTHER_RULES = {
    "centred_clipping": CentredClipping,
    "weighted_median": WeightedMedian,
    "bucketing, geometric_median": Bucketing,
}
