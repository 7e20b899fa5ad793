# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How each update of a round stands among the others: pure functions over the norms and inner products of all.

Everything is compared with the same round's other updates, once all are there: the first and the last round are covered
like any other, and nothing depends on which site answers first. A site is compared with the *median of the others*, so
that one update, whatever it holds, moves the limit of the others by little and its own not at all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]  # [n]
MOST_SAMPLES = 10.0  # times the others' median: a larger number of samples stands out, and excuses no larger update


class Standing(NamedTuple):
    """One update among those of its round.

    Attributes:
        norm: Euclidean, of the update without running statistics, before any clipping.
        norm_ratio: that norm by the median of the others'; None where no other site changed anything.
        cosine: with the mean direction of the others, in [-1, 1]; None with fewer than three updates, or a norm of 0.
        samples_ratio: its number of samples by the median of the others'; None without others.
    """

    norm: float
    norm_ratio: float | None
    cosine: float | None
    samples_ratio: float | None

    def to_json(self) -> dict[str, float]:
        """What is known of it, to six digits."""
        return {name: float(f"{value:.6g}") for name, value in self._asdict().items() if value is not None}


def standings(products: NDArray[np.float64], samples: Vector) -> list[Standing]:
    """Of each of n updates.

    Args:
        products: [n, n] inner products of the updates, without running statistics.
        samples: [n] numbers of samples, above 0.
    """
    norms = np.sqrt(np.diag(products))
    ratios, more = norms / median_of_others(norms), samples / median_of_others(samples)
    cosines = _cosines(products, norms)
    rows = zip(norms, ratios, cosines, more, strict=True)
    return [Standing(float(norm), *(_known(value) for value in others)) for norm, *others in rows]


def median_of_others(values: Vector) -> Vector:
    """[n] for each, the median of the others above 0; NaN where there is none."""
    result = np.full(len(values), np.nan)
    for k in range(len(values)):
        others = np.delete(values, k)
        if (others > 0).any():
            result[k] = np.median(others[others > 0])
    return result


def norm_limits(norms: Vector, samples: Vector, ratio: float) -> Vector:
    """[n] what each norm may be: `ratio` times the median of the others', and more for a site with more samples.

    A site takes as many more steps as it has more samples, so its limit grows with them, up to `MOST_SAMPLES` times.

    Args:
        norms: [n], finite.
        samples: [n], above 0.
        ratio: above 0.
    """
    more = np.clip(samples / median_of_others(samples), 1, MOST_SAMPLES)
    limits = ratio * more * median_of_others(norms)
    return np.where(np.isnan(limits), np.inf, limits)


def _cosines(products: NDArray[np.float64], norms: Vector) -> Vector:
    """[n] of each update with the mean of the others, all taken at length 1; NaN where there is none."""
    result = np.full(len(norms), np.nan)
    moved = np.flatnonzero(norms > 0)
    if len(moved) < 3:
        return result
    unit = products[np.ix_(moved, moved)] / np.outer(norms[moved], norms[moved])
    towards_all, squared = unit.sum(axis=1), unit.sum()
    for place, k in enumerate(moved):
        others = squared - 2 * towards_all[place] + unit[place, place]  # the squared length of the others' sum
        if others > 0:
            result[k] = np.clip((towards_all[place] - unit[place, place]) / np.sqrt(others), -1, 1)
    return result


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
