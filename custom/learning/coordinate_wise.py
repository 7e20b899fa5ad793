# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Coordinate-wise median and trimmed mean (Yin et al. 2018, definitions 1 and 2; https://arxiv.org/abs/1803.01498).

Each entry of the model is combined by itself, so the result need not be near any single update. The paper's machines
hold equally many samples, and so every site counts once here, however many samples it says it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from custom.checks.numbers import check_counts
from custom.learning.robust import Array, Tensors, pieces


class Median:
    """The median of each entry; of an even number, the mean of the two in the middle. Bears fewer than half bad."""

    min_updates = 3  # of two, the median is the mean

    def check(self) -> None:
        """There is nothing to set."""

    def __call__(self, updates: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Array]:
        """See `custom.learning.robust.Rule`."""
        return _trimmed_means(updates, (len(updates) - 1) // 2)


class TrimmedMean:
    """The mean of each entry without its `byzantine` largest and as many smallest values.

    The paper's fraction beta is byzantine / number of updates. The number is what is set, and not the fraction, since
    it stays right when a site's update is missing or was refused.

    Args:
        byzantine: how many sites may send anything.
    """

    def __init__(self, byzantine: int = 1) -> None:
        self.byzantine = byzantine

    @property
    def min_updates(self) -> int:
        """One must be left."""
        return 2 * self.byzantine + 1

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_counts(byzantine=self.byzantine)

    def __call__(self, updates: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Array]:
        """See `custom.learning.robust.Rule`."""
        return _trimmed_means(updates, self.byzantine)


def _trimmed_means(updates: Sequence[Tensors], trimmed: int) -> dict[str, Array]:
    return {name: trimmed_mean([update[name] for update in updates], trimmed) for name in updates[0]}


def trimmed_mean(values: Sequence[NDArray[Any]], trimmed: int) -> Array:
    """The mean of each entry of one tensor without its `trimmed` largest and smallest of n values; n > 2 * trimmed.

    With one or two values left it is the median.
    """
    like = values[0]
    mean = np.empty(like.size, like.dtype)
    for where, rows in pieces(values, like.dtype):
        sort_columns(rows)
        mean[where] = rows[trimmed : len(rows) - trimmed].mean(axis=0, dtype=np.float64)
    return mean.reshape(like.shape)


def sort_columns(rows: Array) -> None:
    """Sorts each column of [n, m], in place: n turns of comparing neighbours, as in odd-even transposition sort.

    Whole rows are compared at a time, which for tens of rows is many times as fast as a sort of each short column.
    """
    for turn in range(len(rows)):
        first = turn % 2
        end = first + (len(rows) - first) // 2 * 2
        lower, upper = rows[first:end:2], rows[first + 1 : end : 2]
        smaller = np.minimum(lower, upper)
        np.maximum(lower, upper, out=upper)
        lower[...] = smaller
