# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Who holds what: label-skewed splits after Hsu et al. 2019, https://arxiv.org/abs/1909.06335.

A partition is a (sites, classes) float64 matrix of fractions. Each column sums to 1, or to 0 where no site holds the
class. One matrix splits the training set and the test set alike, so a site is tested on its own label proportions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from custom.errors import BundleError
from custom.learning.seed import derive

Fractions = NDArray[np.float64]
Indices = NDArray[np.int64]

REDRAWS = 100
MIN_TRAIN, MIN_TEST = 10, 2  # at every site; 10 is the least of which a tenth can be set aside


def iid_fractions(num_sites: int, num_classes: int) -> Fractions:
    """Every site holds the same part of every class."""
    return np.full((num_sites, num_classes), 1 / num_sites)


def dirichlet_fractions(num_sites: int, num_classes: int, alpha: float, seed: int) -> Fractions:
    """Each class is dealt out over the sites by one draw from Dirichlet(alpha).

    Hsu et al. draw a class distribution for every site; the draw here is over the sites of every class, as in Yurochkin
    et al. 2019 (https://arxiv.org/abs/1905.12022), so that each sample is held by exactly one site.

    Raises:
        BundleError: `alpha` is not a positive, finite number.
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise BundleError(
            code="setting-value",
            key="alpha",
            expected="a finite number above 0",
            got=alpha,
            remedy="0.1 is strong label skew, 1 is mild, 100 is almost IID",
        )
    return np.random.default_rng(seed).dirichlet(np.full(num_sites, alpha), num_classes).T


def k_classes_fractions(num_sites: int, num_classes: int, k: int, seed: int) -> Fractions:
    """Each site holds exactly `k` classes, and equal parts of a class go to all who hold it.

    The classes are shuffled and dealt in turn, so they have equally many holders, give or take one, and all are used
    when `num_sites * k >= num_classes`.

    Raises:
        BundleError: `k` is not in 1 .. `num_classes`.
    """
    if not 1 <= k <= num_classes:
        raise BundleError(
            code="setting-value",
            key="classes_per_site",
            expected=f"1 to {num_classes}, the number of classes",
            got=k,
            remedy="choose fewer",
        )
    deck = np.random.default_rng(seed).permutation(num_classes)
    held = np.zeros((num_sites, num_classes))
    for site in range(num_sites):
        held[site, deck[np.arange(site * k, site * k + k) % num_classes]] = 1
    fractions: Fractions = held / np.maximum(held.sum(axis=0), 1)
    return fractions


def split_by_fractions(labels: NDArray[np.int64], fractions: Fractions, seed: int) -> list[Indices]:
    """Deals out shuffled samples class by class, with cumulative rounding.

    Args:
        labels: of shape (samples,), in 0 .. classes - 1.
        fractions: the partition, of shape (sites, classes).
        seed: decides which samples a site gets, and which sites the rounding favours.

    Returns:
        One ascending index array a site; they are disjoint, and each is within one sample a class of its fraction.

    Raises:
        BundleError: there are more sites than samples.
    """
    num_sites, num_classes = fractions.shape
    if num_sites > len(labels):
        raise BundleError(
            code="data-too-small",
            key="partition",
            expected=f"at most {len(labels)} sites, one a sample",
            got=num_sites,
            remedy="start fewer",
        )
    generator = np.random.default_rng(seed)
    shares: list[list[Indices]] = [[] for _ in range(num_sites)]
    for label in range(num_classes):
        members = generator.permutation(np.flatnonzero(labels == label))
        order = generator.permutation(num_sites)  # else the same sites would gain from rounding in every class
        cuts = np.rint(np.cumsum(fractions[order, label]) * len(members)).astype(int)
        for site, part in zip(order, np.split(members, cuts)[:num_sites], strict=True):
            shares[site].append(part)
    return [np.sort(np.concatenate(parts)) for parts in shares]


def draw_of(
    partition: str, num_sites: int, num_classes: int, alpha: float, classes_per_site: int = 1
) -> Callable[[int], Fractions]:
    """What `share_out` draws with: `iid`, `dirichlet` with `alpha`, or `k_classes` with `classes_per_site`."""
    draws: dict[str, Callable[[int], Fractions]] = {
        "iid": lambda _: iid_fractions(num_sites, num_classes),
        "dirichlet": partial(dirichlet_fractions, num_sites, num_classes, alpha),
        "k_classes": partial(k_classes_fractions, num_sites, num_classes, classes_per_site),
    }
    return draws[partition]


def share_out(
    label_sets: Sequence[NDArray[np.int64]],
    min_samples: Sequence[int],
    draw: Callable[[int], Fractions],
    seed: int,
) -> list[list[Indices]]:
    """Splits several label sets with one matrix, drawn again until nobody is left with too little.

    Args:
        label_sets: the labels of the training set and of the test set.
        min_samples: for each label set, the least that a site must hold.
        draw: from a seed to a partition.
        seed: of the whole split.

    Returns:
        For each label set what `split_by_fractions` returns.

    Raises:
        BundleError: some site is short of samples after 100 draws.
    """
    smallest: list[int] = []
    for attempt in range(REDRAWS):
        fractions = draw(derive(seed, attempt))
        shares = [split_by_fractions(labels, fractions, seed) for labels in label_sets]
        smallest = [min(len(share) for share in split) for split in shares]
        if all(got >= least for got, least in zip(smallest, min_samples, strict=True)):
            return shares
    raise BundleError(
        code="data-too-small",
        key="partition",
        expected=f"at least {list(min_samples)} training and test samples at every site after {REDRAWS} draws",
        got=smallest,
        remedy="use fewer sites, sites that differ less (alpha, beta or classes_per_site)",
    )


def split_validation(number: int, fraction: float, seed: int, site: str, remedy: str) -> tuple[Indices, Indices]:
    """Sets a part of a site's training samples aside.

    Args:
        number: of training samples.
        fraction: to set aside, in (0, 1).
        seed: of the job.
        site: for the error.
        remedy: likewise: what the user may change.

    Returns:
        Places of the training and of the validation samples, each ascending.

    Raises:
        BundleError: one of the two would be empty.
    """
    num_validation = round(number * fraction)
    if not 0 < num_validation < number:
        raise BundleError(
            "too few training samples to set some aside for validation",
            code="data-too-small",
            site=site,
            key="validation_fraction",
            expected="at least one sample to train on and one to validate with",
            got=f"{number} in all, of which {fraction:g} is {num_validation}",
            remedy=remedy,
        )
    order = np.random.default_rng(derive(seed, number)).permutation(number)
    return np.sort(order[num_validation:]), np.sort(order[:num_validation])
