# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Small writers for tests: the images are random, and the labels say something about them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from custom.data.writers import WriterPool, Writers, WriterSiteData
from custom.models.keyed_dropout import KeyedDropout

CPU = torch.device("cpu")


def small_cnn(dropout: float = 0.5) -> nn.Module:
    """For images of 8 x 8; the same weights at every call."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), KeyedDropout(dropout))
    return nn.Sequential(*layers, nn.Linear(16, 10))


def make_writers(sizes: list[int], side: int = 28, classes: int = 10) -> Writers:
    """Writers with so many samples; an image of class c is brighter the higher c is."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, sum(sizes))
    images = random.integers(0, 100, (sum(sizes), side, side, 1)) + (15 * labels)[:, None, None, None]
    offsets = np.cumsum([0, *sizes])
    return Writers("toy writers", False, classes, images.astype(np.uint8), labels.astype(np.int64), offsets)


class ToyWriterData:
    """A data component: the last two writers are held out, the others dealt to the sites in blocks."""

    def __init__(self, sizes: tuple[int, ...] = (9, 14, 5, 21, 8, 12, 10, 16)) -> None:
        self.writers = make_writers(list(sizes))

    def site(self, name: str, roster: tuple[str, ...], seed: int) -> WriterSiteData:
        count, place = len(self.writers), sorted(roster).index(name)
        training = np.array_split(np.arange(count - 2), len(roster))[place]
        held_out = np.array_split(np.arange(count - 2, count), len(roster))[place]
        return WriterSiteData(*(WriterPool(self.writers, chosen, seed) for chosen in (training, held_out)))
