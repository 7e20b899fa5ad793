# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Reptile's inner loop (Nichol et al. 2018, https://arxiv.org/abs/1803.02999), to fine-tune the model of FedAvg.

K steps of Adam without momentum (beta1 = 0), as Nichol et al. train; the server then takes a step of its own towards
the mean of what the writers arrived at. Jiang et al. 2019 (https://arxiv.org/abs/1909.12488) fine-tune with Reptile(K)
and Adam. For Adam at the server, too: `ServerAdam` of `custom.aggregators` in the place of `meta_optimizer`.
"""

from __future__ import annotations

from itertools import islice

import torch

from custom.checks.numbers import check_counts, check_rates
from custom.learning.cohort import Copies, draw_passes


class Reptile:
    """K steps of a fresh Adam for each writer; see `custom.learning.cohort.LocalAlgorithm`.

    Args:
        inner_steps: K, batches a writer trains on.
        inner_lr: learning rate of Adam.
        batch_size: samples a batch.
    """

    weigh_by_samples = False

    def __init__(self, inner_steps: int = 5, inner_lr: float = 0.0001, batch_size: int = 20) -> None:
        self.inner_steps, self.inner_lr, self.batch_size = inner_steps, inner_lr, batch_size

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_counts(inner_steps=self.inner_steps, batch_size=self.batch_size)
        check_rates(inner_lr=self.inner_lr)

    def draw(self, rows: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        """One batch a step."""
        return list(islice(draw_passes(rows, self.batch_size, generator), self.inner_steps))

    def train(self, copies: Copies) -> None:
        """Adam without momentum; no state outlives the writer."""
        optimizer = torch.optim.Adam(copies.parameters, self.inner_lr, betas=(0.0, 0.999), fused=True)
        for batch in range(copies.steps):
            copies.backward(batch)
            optimizer.step()
