# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Krum and Multi-Krum (Blanchard et al. 2017, "Machine Learning with Adversaries", sections 4 and 5, NeurIPS).

https://papers.nips.cc/paper/6617-machine-learning-with-adversaries-byzantine-tolerant-gradient-descent. The paper's
workers are alike, and so every site counts once here, however many samples it says it has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from custom.checks.numbers import check_counts
from custom.learning.robust import LinearRule, Matrix, Vector, squared_distances


class Krum(LinearRule):
    """The mean of the `chosen` updates that have their neighbours nearest: Krum with 1, Multi-Krum with more.

    Distances are over all tensors together but running statistics, which are averaged with the chosen, each entry
    within the range of the sites without the `byzantine` largest and smallest.

    Args:
        byzantine: how many sites may send anything, the paper's f; it takes 2 f + 3 updates.
        chosen: how many updates are averaged, the paper's m; None for all but `byzantine`.
    """

    def __init__(self, byzantine: int = 1, chosen: int | None = 1) -> None:
        self.byzantine, self.chosen = byzantine, chosen

    @property
    def min_updates(self) -> int:  # type: ignore[override]
        """2 f + 2 < n, and no more are chosen than are sure to be good."""
        return max(2 * self.byzantine + 3, self.byzantine + (self.chosen or 1))

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_counts(byzantine=self.byzantine, **({} if self.chosen is None else {"chosen": self.chosen}))

    def tolerated(self, n: int) -> int:
        """See `custom.learning.robust.LinearRule`."""
        return self.byzantine

    def shares(self, products: Matrix, weights: Vector) -> Vector:
        """See `custom.learning.robust.LinearRule`."""
        count = self.chosen or len(weights) - self.byzantine
        best = np.argsort(scores(squared_distances(products), self.byzantine), kind="stable")[:count]  # ties: first
        return np.where(np.isin(np.arange(len(weights)), best), 1 / count, 0.0)


def scores(squares: NDArray[np.float64], byzantine: int) -> NDArray[np.float64]:
    """s(i): the sum of the squared distances of update i from the n - f - 2 others nearest to it; [n, n] to [n]."""
    others = np.sort(squares + np.diag(np.full(len(squares), np.inf)))
    return others[:, : len(squares) - byzantine - 2].sum(axis=1)
