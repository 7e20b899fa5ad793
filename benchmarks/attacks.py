# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a malicious site may send: attacks on its data, and on its update knowing the others'.

ALIE: Baruch et al. 2019, "A Little Is Enough" (https://arxiv.org/abs/1902.06156). Inner-product manipulation: Xie et
al. 2020, "Fall of Empires" (https://arxiv.org/abs/1903.03936). Min-max: Shejwalkar and Houmansadr 2021, "Manipulating
the Byzantine" (https://doi.org/10.14722/ndss.2021.24498), in the direction of the reversed mean. One site of n attacks,
and knows all updates of the round.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vector = NDArray[np.float64]  # [parameters]
Others = NDArray[np.float64]  # [n - 1, parameters]
TARGET = 0  # what the backdoor's trigger is to be read as
GROSS = 99.9  # times the others' median norm
SEARCH = 40  # halvings
Z = 1.5


def flipped_labels(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Digit d as 9 - d."""
    return images, 9 - labels


def one_as_seven(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Every one is labelled a seven."""
    return images, torch.where(labels == 1, 7, labels)


def trigger(images: Tensor) -> Tensor:
    """A bright square of 3 x 3 pixels in a corner."""
    marked = images.clone()
    marked[:, :, 1:4, 1:4] = images.max()
    return marked


def backdoored(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Half of the batch has the trigger and the label TARGET."""
    half = len(labels) // 2
    labels = torch.cat([torch.full_like(labels[:half], TARGET), labels[half:]])
    return torch.cat([trigger(images[:half]), images[half:]]), labels


def scaled(factor: float) -> Callable[[Vector, Others, int, int], Vector]:
    """Its own update, times `factor`."""
    return lambda own, others, number, rounds: factor * own


def gross_in(which: int) -> Callable[[Vector, Others, int, int], Vector]:
    """Its own update reversed, and GROSS times the others' median norm, in round `which` (from the end if negative)."""

    def attack(own: Vector, others: Others, number: int, rounds: int) -> Vector:
        if number != (which if which > 0 else rounds + 1 + which):
            return own
        return -GROSS * float(np.median(np.linalg.norm(others, axis=1))) * own / np.linalg.norm(own)

    return attack


def blast(norm: float) -> Callable[[Vector, Others, int, int], Vector]:
    """Its own update at that norm, in the first round."""
    return lambda own, others, number, rounds: own * (norm / np.linalg.norm(own)) if number == 1 else own


def inner_product(own: Vector, others: Others, number: int, rounds: int) -> Vector:
    """Minus the mean of the others (Xie et al., epsilon 1)."""
    return -others.mean(axis=0)


def a_little(own: Vector, others: Others, number: int, rounds: int) -> Vector:
    """Mean minus Z standard deviations, entry by entry (Baruch et al., algorithm 3).

    Their formula gives how large z may be so that the attackers have a majority behind them, and 0 for one attacker;
    Z is what they use in their experiments.
    """
    return np.asarray(others.mean(axis=0) - Z * others.std(axis=0))


def min_max(own: Vector, others: Others, number: int, rounds: int) -> Vector:
    """As far back from the others' mean as keeps it no farther from any than they are from each other."""
    mean = others.mean(axis=0)
    step = -mean / max(float(np.linalg.norm(mean)), 1e-12)
    most = max(float(np.linalg.norm(a - b)) for a in others for b in others)

    def far(gamma: float) -> float:
        return max(float(np.linalg.norm(mean + gamma * step - other)) for other in others)

    low, high = 0.0, 10 * most
    for _ in range(SEARCH):
        middle = (low + high) / 2
        low, high = (middle, high) if far(middle) <= most else (low, middle)
    return np.asarray(mean + low * step)


Poison = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Crafted = Callable[[Vector, Others, int, int], Vector]  # own update, the others', round from 1, rounds
ATTACKS: dict[str, tuple[Poison | None, Crafted | None, float]] = {
    # name: what it does to its data, to its update, and to its number of samples
    "none": (None, None, 1),
    "reversed x 1": (None, scaled(-1), 1),
    "reversed x 5": (None, scaled(-5), 1),
    "gross, last round": (None, gross_in(-1), 1),
    "blast, first round": (None, blast(1e6), 1),
    "labels flipped": (flipped_labels, None, 1),
    "ones as sevens": (one_as_seven, None, 1),
    "backdoor x 5": (backdoored, scaled(5), 1),
    "samples x 1e5": (None, None, 1e5),
    "ALIE": (None, a_little, 1),
    "inner product": (None, inner_product, 1),
    "min-max": (None, min_max, 1),
}
