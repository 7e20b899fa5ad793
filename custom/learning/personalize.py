# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Personalisation of a global model for writers that took no part in training (Jiang et al. 2019, section 2).

https://arxiv.org/abs/1909.12488. Each held-out writer trains the model on its support samples; it is scored before and
after on its query samples. The two parts are stratified by class, see `custom.data.writers.divide_by_class`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import nn

from custom.data.component import check_fraction
from custom.data.writers import WriterPool
from custom.errors import BundleError
from custom.learning.cohort import Work
from custom.learning.fed_avg import FedAvg
from custom.learning.train_writers import cohorts, make_work

STREAM = 1_000_004  # beyond any round, so that the random numbers are others


@dataclass
class Personalized:
    """One entry a writer, in the order of the pool.

    Attributes:
        dropped: writers that are left out because a score was not finite: what they made of the model diverged.
        support: samples it was personalised on.
        query: samples it was scored on.
        unseen: how many of the query samples are of classes of which it has no support sample.
        initial_loss: mean over the query samples, of the model as received, in nats.
        initial_accuracy: in [0, 1].
        personalized_loss: after training on the support samples.
        personalized_accuracy: likewise.
    """

    dropped: int = 0
    support: list[int] = field(default_factory=list)
    query: list[int] = field(default_factory=list)
    unseen: list[int] = field(default_factory=list)
    initial_loss: list[float] = field(default_factory=list)
    initial_accuracy: list[float] = field(default_factory=list)
    personalized_loss: list[float] = field(default_factory=list)
    personalized_accuracy: list[float] = field(default_factory=list)

    def add(self, work: Work, *scores: float) -> None:
        """One writer, with the loss and accuracy before and after."""
        if not all(map(math.isfinite, scores)):
            self.dropped += 1
            return
        columns = (self.initial_loss, self.initial_accuracy, self.personalized_loss, self.personalized_accuracy)
        for column, score in zip(columns, scores, strict=True):
            column.append(score)
        self.query.append(len(work.query))
        self.support.append(len(work.labels) - len(work.query))
        self.unseen.append(_unseen(work))

    def means(self) -> dict[str, float]:
        """Over the writers, every one alike, and how many there are; only that if there are none."""
        if not self.query:
            return {"writers": 0}
        names = ("initial_loss", "initial_accuracy", "personalized_loss", "personalized_accuracy")
        return {"writers": len(self.query), **{name: fmean(getattr(self, name)) for name in names}}


def _unseen(work: Work) -> int:
    is_query = torch.zeros(len(work.labels), dtype=torch.bool, device=work.labels.device)
    is_query[work.query.to(is_query.device)] = True
    return int((~torch.isin(work.labels[is_query], work.labels[~is_query])).sum())


class Personalization:
    """The component with the id `personalization`: how a held-out writer makes the model its own.

    Args:
        personalization_epochs: passes over the support samples.
        personalization_lr: learning rate of SGD.
        batch_size: samples a batch.
        support_fraction: of a writer's samples of each class, in (0, 1); the others are the query samples. A class of
            one sample goes to the support samples.
        eval_every: score the global model, before and after personalising, every so many rounds; 0: at the end only.
    """

    def __init__(
        self,
        personalization_epochs: int = 5,
        personalization_lr: float = 0.01,
        batch_size: int = 20,
        support_fraction: float = 0.5,
        eval_every: int = 10,
    ) -> None:
        self.algorithm = FedAvg(personalization_epochs, personalization_lr, batch_size)
        self.support_fraction, self.eval_every = support_fraction, eval_every

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        names = {"local_epochs": "personalization_epochs", "local_lr": "personalization_lr"}
        self.algorithm.check(**names)
        check_fraction("support_fraction", self.support_fraction)
        if isinstance(self.eval_every, bool) or not isinstance(self.eval_every, int) or self.eval_every < 0:
            raise BundleError(
                code="setting-value", key="eval_every", expected="an integer of at least 0", got=repr(self.eval_every)
            )

    def is_due(self, round_index: int) -> bool:
        """Is the model that a round (from 0 on) starts from to be scored?"""
        return self.eval_every > 0 and round_index % self.eval_every == 0

    def run(
        self,
        model: nn.Module,
        pool: WriterPool,
        device: torch.device,
        *,
        stacked: bool,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Personalized:
        """Personalises `model`, as it is now, for every writer of `pool`; it is left as it was."""
        start = [parameter.detach().clone() for parameter in model.parameters()]
        result = Personalized()
        for cohort, copies in cohorts(model, start, self._works(pool, device), stacked, should_stop):
            before = copies.scores()
            self.algorithm.train(copies)
            after = copies.scores()
            columns = (before.loss, before.accuracy, after.loss, after.accuracy)
            for work, *scores in zip(cohort, *(column.tolist() for column in columns), strict=True):
                result.add(work, *scores)
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), start, strict=True):
                parameter.copy_(value)
        return result

    def _works(self, pool: WriterPool, device: torch.device) -> Iterator[Work]:
        def divide(place: int) -> tuple[torch.Tensor, torch.Tensor]:
            return pool.support_and_query(place, self.support_fraction)

        return (make_work(self.algorithm, pool, place, (STREAM,), device, divide) for place in range(len(pool)))
