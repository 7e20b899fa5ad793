# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FedAvg's local training, by plain SGD (McMahan et al. 2017, https://arxiv.org/abs/1602.05629, ClientUpdate)."""

from __future__ import annotations

import math
from itertools import islice

import torch

from custom.checks.numbers import check_counts, check_rates
from custom.learning.cohort import Copies, draw_passes


class FedAvg:
    """E epochs of SGD from the received model; see `custom.learning.cohort.LocalAlgorithm`.

    Args:
        local_epochs: passes over a writer's samples.
        local_lr: learning rate.
        batch_size: samples a batch.
    """

    weigh_by_samples = True

    def __init__(self, local_epochs: int = 5, local_lr: float = 0.02, batch_size: int = 20) -> None:
        self.local_epochs, self.local_lr, self.batch_size = local_epochs, local_lr, batch_size

    def check(self, local_epochs: str = "local_epochs", local_lr: str = "local_lr") -> None:
        """Raises BundleError, which names the argument by the given names, if a setting is out of range."""
        check_counts(**{local_epochs: self.local_epochs}, batch_size=self.batch_size)
        check_rates(**{local_lr: self.local_lr})

    def draw(self, rows: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        """The batches of all epochs."""
        steps = self.local_epochs * math.ceil(len(rows) / self.batch_size)
        return list(islice(draw_passes(rows, self.batch_size, generator), steps))

    def train(self, copies: Copies) -> None:
        """w <- w - lr g(w; batch), batch after batch."""
        optimizer = torch.optim.SGD(copies.parameters, self.local_lr, fused=True)
        for batch in range(copies.steps):
            copies.backward(batch)
            optimizer.step()
