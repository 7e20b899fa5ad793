# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Krum and Multi-Krum (Blanchard et al. 2017, "Machine Learning with Adversaries", sections 4 and 5, NeurIPS).

https://papers.nips.cc/paper/6617-machine-learning-with-adversaries-byzantine-tolerant-gradient-descent. The paper's
workers are alike, and so every site counts once here, however many samples it says it has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from custom.learning.robust import Array, Tensors, bound_statistics, combine, measured, pieces
from custom.learning.train import check_counts


class Krum:
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
    def min_updates(self) -> int:
        """2 f + 2 < n, and no more are chosen than are sure to be good."""
        return max(2 * self.byzantine + 3, self.byzantine + (self.chosen or 1))

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_counts(byzantine=self.byzantine, **({} if self.chosen is None else {"chosen": self.chosen}))

    def __call__(self, updates: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Array]:
        """See `custom.learning.robust.Rule`."""
        count = self.chosen or len(updates) - self.byzantine
        best = np.argsort(scores(squared_distances(updates), self.byzantine), kind="stable")[:count]  # ties: first name
        bounded = bound_statistics(updates, self.byzantine)
        return combine([bounded[k] for k in sorted(best)], [1 / count] * count)


def scores(squares: NDArray[np.float64], byzantine: int) -> NDArray[np.float64]:
    """s(i): the sum of the squared distances of update i from the n - f - 2 others nearest to it; [n, n] to [n]."""
    others = np.sort(squares + np.diag(np.full(len(squares), np.inf)))
    return others[:, : len(squares) - byzantine - 2].sum(axis=1)


def squared_distances(updates: Sequence[Tensors]) -> NDArray[np.float64]:
    """[n, n], over all tensors together but running statistics.

    From differences, not from scalar products: beside an update of norm 1e30, those of the others would be lost.
    """
    squares = np.zeros((len(updates), len(updates)))
    for name in measured(updates[0]):
        for _, rows in pieces([update[name] for update in updates]):
            for k in range(len(rows) - 1):
                difference = rows[k + 1 :] - rows[k]
                squares[k, k + 1 :] += np.einsum("kj,kj->k", difference, difference)
    return squares + squares.T
