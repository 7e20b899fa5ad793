# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The model itself as the copy of one writer at a time: the way to train on a CPU. See `custom.learning.cohort.Copies`.

Nothing is allocated for a writer but its gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from custom.learning.cohort import Scores, Work
from custom.learning.evaluate import EVALUATION_BATCH
from custom.models.keyed_dropout import keyed_layers, set_keys


class OneCopy:
    """The copy of a single writer.

    Args:
        model: on the device of the work; its parameters are overwritten.
        start: the weights to start from, in the order of `model.parameters()`.
        works: of one writer.
    """

    stacked = False

    def __init__(self, model: nn.Module, start: Sequence[torch.Tensor], works: Sequence[Work]) -> None:
        (self._work,) = works
        self._model = model
        self.parameters: list[torch.Tensor] = list(model.parameters())
        self.steps = len(self._work.batches)
        self._layers = keyed_layers(model)
        self._loss, self._seen = torch.zeros(1, dtype=torch.float64, device=start[0].device), 0
        with torch.no_grad():
            for parameter, value in zip(self.parameters, start, strict=True):
                parameter.copy_(value)

    def backward(self, batch: int) -> None:
        """See `Copies`."""
        rows = self._work.batches[batch]
        set_keys(self._model, self._layers, self._work.seed, batch)
        for parameter in self.parameters:
            parameter.grad = None
        loss = functional.cross_entropy(self._model.train()(take(self._work.images, rows)), self._work.labels[rows])
        loss.backward()
        self._loss += loss.detach().double() * len(rows)  # no wait for the device
        self._seen += len(rows)

    def losses(self) -> torch.Tensor:
        """See `Copies`."""
        return self._loss.cpu() / max(1, self._seen)

    @torch.inference_mode()
    def scores(self) -> Scores:
        """See `Copies`."""
        self._model.eval()
        loss = torch.zeros(1, dtype=torch.float64)
        right = torch.zeros(1, dtype=torch.float64)
        for rows in self._work.query.split(EVALUATION_BATCH):
            logits, labels = self._model(take(self._work.images, rows)), self._work.labels[rows]
            loss += functional.cross_entropy(logits, labels, reduction="sum").double().cpu()
            right += (logits.argmax(1) == labels).sum().double().cpu()
        count = max(1, len(self._work.query))
        return Scores(loss / count, right / count)


def take(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The images at `rows`, channels last where they are images."""
    taken = images[rows]
    return taken.contiguous(memory_format=torch.channels_last) if taken.dim() == 4 else taken
