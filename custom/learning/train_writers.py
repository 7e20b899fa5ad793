# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The update of a site that hosts many writers: FedAvg over those who were drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import nn

from custom.data.writers import WriterPool
from custom.errors import BundleError
from custom.learning.cohort import EMPTY, Copies, LocalAlgorithm, Work
from custom.learning.one_copy import OneCopy
from custom.learning.stacked_copies import StackedCopies
from custom.learning.train import Aborted

COHORT_SIZE = 64  # copies of the model on a GPU at once


@dataclass
class WritersUpdate:
    """What came of training some writers.

    Attributes:
        diff: weighted mean of what training added to the weights, in the order of the model's parameters; empty if
            `weight` is 0.
        weight: sum of the writers' weights.
        trained: writers in the mean.
        dropped: writers left out because their update was not finite.
        loss: weighted mean of the writers' training losses.
    """

    diff: list[torch.Tensor] = field(default_factory=list)
    weight: float = 0.0
    trained: int = 0
    dropped: int = 0
    loss: float = 0.0


def cohorts(
    model: nn.Module,
    start: Sequence[torch.Tensor],
    works: Iterable[Work],
    stacked: bool,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[list[Work], Copies]]:
    """Copies of `model` with the weights `start`, for one writer after the other or `COHORT_SIZE` at a time.

    Raises:
        Aborted: `should_stop`, which is asked before every cohort, said so.
    """
    remaining = iter(works)
    while cohort := list(islice(remaining, COHORT_SIZE if stacked else 1)):
        if should_stop():
            raise Aborted
        yield cohort, (StackedCopies if stacked else OneCopy)(model, start, cohort)


def train_writers(
    model: nn.Module,
    algorithm: LocalAlgorithm,
    works: Iterable[Work],
    *,
    stacked: bool,
    should_stop: Callable[[], bool] = lambda: False,
) -> WritersUpdate:
    """Trains each writer from the weights that `model` has now, which it has no longer afterwards.

    Args:
        model: on the device of the works.
        algorithm: what each writer does.
        works: the writers; one cohort of them is in memory at a time.
        stacked: train a cohort at once.
        should_stop: asked before every cohort; then `Aborted` is raised.
    """
    start = [parameter.detach().clone() for parameter in model.parameters()]
    total = [torch.zeros_like(_exact(value)) for value in start]
    update, loss = WritersUpdate(), 0.0
    for cohort, copies in cohorts(model, start, works, stacked, should_stop):
        algorithm.train(copies)
        differences = _differences(copies, start)
        norms = sum(difference.reshape(len(cohort), -1).norm(dim=1) for difference in differences)
        finite = torch.isfinite(torch.as_tensor(norms)).cpu()
        samples = [float(len(work.labels)) if algorithm.weigh_by_samples else 1.0 for work in cohort]
        weights = torch.tensor(samples) * finite
        for tensor, difference in zip(total, differences, strict=True):
            _add_weighted(tensor, difference, weights)
        update.weight += float(weights.sum())
        update.trained += int(finite.sum())
        update.dropped += int((~finite).sum())
        loss += float((copies.losses()[finite] * weights[finite]).sum())
    if update.weight > 0:
        update.diff = [tensor / update.weight for tensor in total]
        update.loss = loss / update.weight
    return update


def make_work(
    algorithm: LocalAlgorithm,
    pool: WriterPool,
    place: int,
    stream: Sequence[int],
    device: torch.device,
    divide: Callable[[int], tuple[torch.Tensor, torch.Tensor]] | None = None,
) -> Work:
    """Loads a writer and draws the batches.

    Args:
        algorithm: draws them.
        pool: the writer's.
        place: of the writer in the pool.
        stream: what the random numbers are for, such as a task and a round.
        device: of the model.
        divide: from a place to the rows to train on and those to score on; by default all are to train on.
    """
    images, labels = pool.load(place, device)
    train, query = divide(place) if divide else (torch.arange(len(labels)), EMPTY)
    seed = pool.random_seed(place, *stream)
    return Work(images, labels, algorithm.draw(train, torch.Generator().manual_seed(seed)), seed, query)


def check_trainable(model: nn.Module) -> None:
    """Writers' updates carry the parameters, and their random numbers are their own: the model must suit both.

    Raises:
        BundleError: it has persistent buffers, frozen parameters, or dropout that draws from torch's global generator.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise BundleError(
                code="model-unfit",
                key=f"model {name}",
                expected="dropout with random numbers of each writer's own",
                got=type(module).__name__,
                remedy="use custom.models.keyed_dropout.KeyedDropout",
            )
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            raise BundleError(
                code="model-unfit",
                key=f"model {name}",
                expected="a model whose parameters are all trained",
                got="one that is frozen",
            )
    persistent = model.state_dict().keys() - dict(model.named_parameters()).keys()
    if persistent:
        raise BundleError(
            code="model-unfit",
            key=f"model {min(persistent)}",
            expected="a model without buffers, as a writer has too few samples for running statistics",
            got=f"{len(persistent)} of them",
            remedy="use GroupNorm in place of BatchNorm",
        )


def _differences(copies: Copies, start: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Of the copies from `start`: (writers, ...) each."""
    pairs = zip(copies.parameters, start, strict=True)
    differences = [_exact(parameter.detach()) - _exact(value) for parameter, value in pairs]
    return differences if copies.stacked else [difference[None] for difference in differences]


def _exact(values: torch.Tensor) -> torch.Tensor:
    """In float32 if they are bfloat16, as which they travel; else as they are."""
    return values.float() if values.dtype == torch.bfloat16 else values


def _add_weighted(total: torch.Tensor, differences: torch.Tensor, weights: torch.Tensor) -> None:
    """Adds those differences to `total` whose weight is not 0, times their weight; 0 times NaN would be NaN."""
    kept = weights.nonzero().flatten()
    if len(kept) == 1:
        total.add_(differences[kept[0]], alpha=float(weights[kept[0]]))
    elif len(kept):
        total.add_(torch.tensordot(weights[kept].to(total), differences[kept.to(total.device)], dims=1))
