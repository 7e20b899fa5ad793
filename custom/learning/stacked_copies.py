# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Copies of the model for a whole cohort, stacked and trained at once: the way to train on a GPU.

Small models and batches leave a GPU idle; `torch.func.vmap` over stacked parameters makes one kernel of many.
See `custom.learning.cohort.Copies`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from custom.learning.cohort import EMPTY, Scores, Work
from custom.models.keyed_dropout import keyed_layers, keys

SCORED_AT_ONCE = 128  # samples of each writer
Named = dict[str, torch.Tensor]


class StackedCopies:
    """The copies of several writers.

    Args:
        model: on the device of the work; not changed. It must have no persistent buffers.
        start: the weights to start from, in the order of `model.parameters()`.
        works: one a writer.
    """

    stacked = True

    def __init__(self, model: nn.Module, start: Sequence[torch.Tensor], works: Sequence[Work]) -> None:
        self._model, self._works = model, works
        self._device = start[0].device
        self._names = [name for name, _ in model.named_parameters()]
        self.parameters = [torch.stack([value.detach()] * len(works)).requires_grad_() for value in start]
        self._layers = keyed_layers(model)
        self._buffers = {name: torch.stack([value] * len(works)) for name, value in model.named_buffers()}
        self.steps = max(len(work.batches) for work in works)
        self._images = pad_sequence([work.images for work in works], batch_first=True)
        self._labels = pad_sequence([work.labels for work in works], batch_first=True)
        self._loss = torch.zeros(len(works), dtype=torch.float64, device=self._device)
        self._seen = torch.zeros(len(works), dtype=torch.float64, device=self._device)

    def backward(self, batch: int) -> None:
        """See `Copies`."""
        rows = [work.batches[batch] if batch < len(work.batches) else EMPTY for work in self._works]
        images, labels, weights = self._gather(rows)
        drawn = [keys(self._layers, work.seed, batch) for work in self._works]
        for name in drawn[0]:
            self._buffers[name] = torch.tensor([one[name] for one in drawn], device=self._device)

        def loss_of(
            parameters: Named, buffers: Named, images: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
        ) -> torch.Tensor:
            logits = functional_call(self._model, (parameters, buffers), (images,))
            losses = functional.cross_entropy(logits, labels, reduction="none")
            return (losses * weights).sum() / weights.sum().clamp(min=1.0)

        self._model.train()
        named = dict(zip(self._names, (parameter.detach() for parameter in self.parameters), strict=True))
        gradients, losses = vmap(grad_and_value(loss_of))(named, self._buffers, images, labels, weights)
        for name, parameter in zip(self._names, self.parameters, strict=True):
            parameter.grad = gradients[name]
        count = weights.sum(1).double()
        self._loss += losses.double() * count
        self._seen += count

    def losses(self) -> torch.Tensor:
        """See `Copies`."""
        return (self._loss / self._seen.clamp(min=1.0)).cpu()

    @torch.no_grad()
    def scores(self) -> Scores:
        """See `Copies`."""
        longest = max(len(work.query) for work in self._works)
        parts = [self._sums(slice(first, first + SCORED_AT_ONCE)) for first in range(0, longest, SCORED_AT_ONCE)]
        count = torch.tensor([max(1.0, len(work.query)) for work in self._works])
        none = torch.zeros(len(self._works), dtype=torch.float64)
        loss, right = (sum(column, none) for column in zip(*parts, strict=True)) if parts else (none, none)
        return Scores(loss / count, right / count)

    def _sums(self, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses and right answers of each copy over a part of its writer's query samples, on the CPU."""
        images, labels, weights = self._gather([work.query[part] for work in self._works])

        def logits_of(parameters: Named, buffers: Named, images: torch.Tensor) -> torch.Tensor:
            return functional_call(self._model, (parameters, buffers), (images,))

        self._model.eval()
        named = dict(zip(self._names, self.parameters, strict=True))
        logits = vmap(logits_of)(named, self._buffers, images)
        losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
        right = logits.argmax(2) == labels
        loss, hits = ((values.double() * weights).sum(1).cpu() for values in (losses, right))
        return loss, hits

    def _gather(self, rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (writers, batch, ...), labels and weights (writers, batch); the weight of what fills up is 0."""
        padded = pad_sequence(list(rows), batch_first=True).to(self._device)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        weights = (torch.arange(padded.shape[1], device=self._device) < lengths[:, None]).float()
        writers = torch.arange(len(rows), device=self._device)[:, None]
        return self._images[writers, padded], self._labels[writers, padded], weights
