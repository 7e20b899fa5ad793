# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A cohort: writers whose copies of one model are trained, one after the other or all at once.

The algorithms (`fed_avg`, `reptile`, `maml`) are written once, against `Copies`, whose tensors belong to one writer
or are stacked over several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

EMPTY = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class Work:
    """What one writer trains on.

    Attributes:
        images: of shape (samples, ...), float32, on the device of the model.
        labels: int64 of shape (samples,), there too.
        batches: row numbers of the batch that each gradient is taken on, in order.
        seed: of everything random beside the order of the batches, such as dropout.
        query: row numbers to score on; empty if the writer is not scored.
    """

    images: torch.Tensor
    labels: torch.Tensor
    batches: Sequence[torch.Tensor]
    seed: int
    query: torch.Tensor = EMPTY


@dataclass(frozen=True)
class Scores:
    """Mean loss over the query samples of each writer (nats), and the share that is right; float64 (writers,), CPU."""

    loss: torch.Tensor
    accuracy: torch.Tensor


class Copies(Protocol):
    """One copy of the model for each writer of a cohort; all start from the same weights.

    Attributes:
        parameters: of the copies, leaf tensors; their first dimension is the writers if `stacked`.
        stacked: is it?
        steps: batches of the writer that has the most.
    """

    parameters: list[torch.Tensor]
    stacked: bool
    steps: int

    def backward(self, batch: int) -> None:
        """Leaves in `grad` the gradient of each copy's mean cross-entropy on its writer's batch of that number.

        It is 0 for a writer that has fewer batches.
        """

    def losses(self) -> torch.Tensor:
        """Mean loss over the samples of all `backward` so far, float64 of shape (writers,), on the CPU."""

    def scores(self) -> Scores:
        """Of each copy as it is now, on the query samples."""


class LocalAlgorithm(Protocol):
    """What a writer does with the model it receives; a component of the client's configuration.

    Attributes:
        weigh_by_samples: does a writer count by its samples in the server's mean, or all alike?
    """

    weigh_by_samples: bool

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""

    def draw(self, rows: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        """The batches for `train`, out of a writer's `rows`."""

    def train(self, copies: Copies) -> None:
        """Trains all copies, in place."""


def draw_passes(rows: torch.Tensor, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Batches of `rows` without end: pass after pass, each in a fresh order; the last of a pass may be smaller."""
    while True:
        yield from rows[torch.randperm(len(rows), generator=generator)].split(batch_size)
