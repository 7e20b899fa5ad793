# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Robust aggregation word by word from the papers, in plain Python over lists of numbers; slow."""

from __future__ import annotations

import itertools
import math
import statistics

Vectors = list[list[float]]


def median(vectors: Vectors) -> list[float]:
    """Yin et al. 2018, definition 1."""
    return [statistics.median(values) for values in zip(*vectors, strict=True)]


def trimmed_mean(vectors: Vectors, trimmed: int) -> list[float]:
    """Yin et al. 2018, definition 2."""
    kept = [sorted(values)[trimmed : len(vectors) - trimmed] for values in zip(*vectors, strict=True)]
    return [math.fsum(values) / len(values) for values in kept]


def krum_order(vectors: Vectors, byzantine: int) -> list[int]:
    """Blanchard et al. 2017: from the lowest score to the highest; of equal ones, the lower number first.

    A score is the smallest sum of squared distances to n - f - 2 others, found by trying all groups of so many.
    """
    n = len(vectors)
    score = {}
    for i in range(n):
        to = {j: math.dist(vectors[i], vectors[j]) ** 2 for j in range(n) if j != i}
        groups = itertools.combinations(to, n - byzantine - 2)
        score[i] = min(math.fsum(to[j] for j in group) for group in groups)
    return sorted(range(n), key=lambda i: (score[i], i))


def multi_krum(vectors: Vectors, byzantine: int, chosen: int) -> list[float]:
    """The mean of the first `chosen`."""
    best = [vectors[i] for i in krum_order(vectors, byzantine)[:chosen]]
    return [math.fsum(values) / chosen for values in zip(*best, strict=True)]


def geometric_median(vectors: Vectors, weights: list[float], precision: float = 1e-7) -> list[float]:
    """The lowest point of sum_k weight_k ||v - w_k||, by search along the axes and diagonals with shrinking steps."""

    def height(point: list[float]) -> float:
        return math.fsum(w * math.dist(point, vector) for vector, w in zip(vectors, weights, strict=True))

    point = [math.fsum(values) / len(values) for values in zip(*vectors, strict=True)]
    step = max(math.dist(point, vector) for vector in vectors)
    directions = [d for d in itertools.product((-1, 0, 1), repeat=len(point)) if any(d)]
    while step > precision:
        around = [[x + step * d for x, d in zip(point, direction, strict=True)] for direction in directions]
        lowest = min(around, key=height)
        if height(lowest) < height(point):
            point = lowest
        else:
            step /= 2
    return point
