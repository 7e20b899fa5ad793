# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Many small clients at one site: whose images are whose, and how one writer's are read.

A writer is a person whose handwriting the images are, or whoever else stands for one client of cross-device learning.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from custom.data.site_data import Batch
from custom.keys import LARGEST_WRITER
from custom.learning.seed import derive

SUPPORT_STREAM = 1_000_003  # beyond any round, so that the random numbers are others


@dataclass(frozen=True)
class Writers:
    """The images of many writers, one writer after the other.

    Attributes:
        name: of the data set, as reports call it.
        embedded: the images ship with the software, so they are for trying things out.
        num_classes: labels are 0 .. num_classes - 1.
        images: uint8 of shape (samples, height, width, channels); may be mapped from a file.
        labels: int64 of shape (samples,).
        offsets: int64 of shape (writers + 1,); writer i has the samples offsets[i] .. offsets[i + 1] - 1.
        mean: subtracted from pixels scaled to [0, 1].
        std: divides them then.
        held_out: the writers that the data set itself keeps from training, or None if it does not say.
        skipped: writers of the source that were left out because they had too few samples.
        left_out: all that was left out, by reason: such writers, and files that are not of the data set.
    """

    name: str
    embedded: bool
    num_classes: int
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    mean: float = 0.0
    std: float = 1.0
    held_out: NDArray[np.int64] | None = None
    skipped: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def sizes(self) -> NDArray[np.int64]:
        """Number of samples of each writer, of shape (writers,)."""
        return np.diff(self.offsets)

    def digest(self) -> int:
        """Of whose samples are of which class; two data sets with the same one have the same writers."""
        return zlib.crc32(self.labels.tobytes(), zlib.crc32(self.offsets.tobytes()))

    def load(self, writer: int, device: torch.device) -> Batch:
        """All images of one writer, float32 of shape (samples, channels, height, width), and int64 labels."""
        rows = slice(int(self.offsets[writer]), int(self.offsets[writer + 1]))
        pixels = torch.from_numpy(np.array(self.images[rows])).to(device).permute(0, 3, 1, 2)
        images = pixels.float().div_(255.0).sub_(self.mean).div_(self.std)
        return images, torch.from_numpy(np.array(self.labels[rows])).to(device)


@dataclass(frozen=True)
class WriterPool:
    """Some writers that one site hosts; outside the site they are known by their place in the pool alone.

    Attributes:
        writers: all writers of the data set.
        chosen: which of them belong to the pool, in an order that does not tell who they are.
        seed: of the job (at a site with data of its own: of the site), from which a writer's random numbers derive, so
            that they are the same whichever site hosts the writer.
    """

    writers: Writers
    chosen: NDArray[np.int64]
    seed: int

    def __len__(self) -> int:
        return len(self.chosen)

    def num_samples(self, place: int) -> int:
        """Of the writer at `place`."""
        return int(self.writers.sizes()[self.chosen[place]])

    def total_samples(self) -> int:
        """Of all writers of the pool."""
        return int(self.writers.sizes()[self.chosen].sum())

    def largest(self) -> int:
        """Samples of the writer with the most; 0 in an empty pool."""
        return int(self.writers.sizes()[self.chosen].max(initial=0))

    def smallest(self) -> WriterPool:
        """A pool of the writer with the fewest samples alone; empty if this one is."""
        sizes = self.writers.sizes()[self.chosen]
        return replace(self, chosen=self.chosen[np.argsort(sizes, kind="stable")[:1]])

    def labels(self) -> NDArray[np.int64]:
        """Of all samples, one writer after the other."""
        offsets = self.writers.offsets
        rows = [np.arange(offsets[writer], offsets[writer + 1]) for writer in self.chosen]
        return np.asarray(self.writers.labels)[np.concatenate([np.empty(0, dtype=np.int64), *rows])]

    def load(self, place: int, device: torch.device) -> Batch:
        """See `Writers.load`."""
        return self.writers.load(int(self.chosen[place]), device)

    def random_seed(self, place: int, *stream: int) -> int:
        """A seed for the writer at `place` and one use of it, such as a round."""
        return derive(self.seed, int(self.chosen[place]), *stream)

    def support_and_query(self, place: int, support_fraction: float) -> tuple[torch.Tensor, torch.Tensor]:
        """A fixed division of the writer's samples: to personalise with, and to score on. Each has one at least.

        See `divide_by_class`; the random numbers derive from the seed of the pool and the writer.

        Args:
            place: of a writer with two samples or more.
            support_fraction: of the samples, in (0, 1).

        Returns:
            Row numbers among the writer's samples, int64.
        """
        writer = int(self.chosen[place])
        labels = self.writers.labels[self.writers.offsets[writer] : self.writers.offsets[writer + 1]]
        generator = torch.Generator().manual_seed(self.random_seed(place, SUPPORT_STREAM))
        return divide_by_class(np.asarray(labels), support_fraction, generator)


def divide_by_class(
    labels: NDArray[np.int64], support_fraction: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Support and query rows, stratified by class: a class is scored only where it can have been learned.

    Each class of two samples or more has at least one in both parts, and `support_fraction` of its samples in the
    support part. What is left over by rounding goes where the totals need it, drawn at random among classes with equal
    remainders (Hamilton's method): with a fraction of 0.5 and no class of one sample, the totals differ by at most one.
    A class of one sample goes into the support part, so the query classes are a subset of the support classes. Only
    where every class has one sample is that impossible: the rows are then divided at random.

    Args:
        labels: of shape (samples,), two or more.
        support_fraction: of the samples, in (0, 1).
        generator: of the random order; equal generators give equal parts.

    Returns:
        Row numbers in random order, int64.
    """
    count = len(labels)
    order = torch.randperm(count, generator=generator)
    total = min(max(1, round(support_fraction * count)), count - 1)
    classes, inverse, sizes = np.unique(labels[order.numpy()], return_inverse=True, return_counts=True)
    if sizes.max() == 1:
        return order[:total], order[total:]
    quotas = support_fraction * sizes
    parts = np.minimum(np.clip(np.floor(quotas), 1, np.maximum(1, sizes - 1)), sizes).astype(np.int64)
    remainders = np.where(parts < sizes - 1, quotas - parts, 0.0)
    drawn = torch.randperm(len(classes), generator=generator).numpy()
    ranked = drawn[np.argsort(-remainders[drawn], kind="stable")]
    parts[ranked[: max(0, min(total - int(parts.sum()), int((remainders > 0).sum())))]] += 1
    by_class = np.argsort(inverse, kind="stable")
    rank = np.empty(count, np.int64)  # of each sample among those of its class, in the random order
    rank[by_class] = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    support = torch.from_numpy(rank < parts[inverse])
    return order[support], order[~support]


class WriterSiteData:
    """One site's writers, as `custom.data.site_data.SiteData` and writer by writer.

    Args:
        training: the writers that take part in training.
        held_out: writers that no training ever sees.
        shared: all sites read the same data, and each hosts a part of the writers.
    """

    def __init__(self, training: WriterPool, held_out: WriterPool, shared: bool = False) -> None:
        self.training, self.held_out, self.shared = training, held_out, shared

    def describe(self) -> dict[str, Any]:
        """Facts that the sites of one federation must agree on."""
        writers = self.training.writers
        _, height, width, channels = writers.images.shape
        return {
            "dataset": writers.name,
            "embedded": writers.embedded,
            "num_classes": writers.num_classes,
            "input_shape": [channels, height, width],
            # Else a writer could be held out at one site and trained on at another.
            **({"writers": len(writers), "digest": writers.digest()} if self.shared else {}),
        }

    def size(self, split: str) -> int:
        """Number of samples of the training writers (`train`) or of those held out (`test`); `validation` is empty."""
        return sum(pool.total_samples() for pool in self._pools(split))

    def counts(self) -> dict[str, int]:
        """Samples by split and of the largest training writer, and writers."""
        return {
            "train": self.size("train"),
            "test": self.size("test"),
            LARGEST_WRITER: self.training.largest(),
            "training_writers": len(self.training),
            "held_out_writers": len(self.held_out),
            "skipped_writers": self.training.writers.skipped,
        }

    def left_out(self) -> dict[str, int]:
        """How much of what the site read is not used, by reason."""
        return dict(self.training.writers.left_out)

    def labels_of(self, split: str) -> torch.Tensor:
        """int64 of shape (samples,); the images are bytes, and so finite."""
        parts = [pool.labels() for pool in self._pools(split)]
        return torch.from_numpy(np.concatenate([np.empty(0, dtype=np.int64), *parts]))

    def batches(
        self, split: str, batch_size: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """The samples of `train` or `test` writer by writer, a batch never of more than one writer."""
        for pool in self._pools(split):
            for place in _order(len(pool), generator).tolist():
                images, labels = pool.load(place, device)
                for rows in _order(len(labels), generator).split(batch_size):
                    yield images[rows.to(device)], labels[rows.to(device)]

    def _pools(self, split: str) -> tuple[WriterPool, ...]:
        """The writers of a split; no writers are set aside for `validation`."""
        return {"train": (self.training,), "validation": (), "test": (self.held_out,)}[split]


def _order(count: int, generator: torch.Generator | None) -> torch.Tensor:
    """The numbers below `count`, shuffled if there is a generator."""
    return torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
