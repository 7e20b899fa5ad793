# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The optimisers of local training: SGD with momentum, and AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from custom.checks.numbers import check_rates
from custom.errors import BundleError

OPTIMIZERS = ("sgd", "adamw")
BETA2 = 0.999


@dataclass(frozen=True)
class LocalOptimizer:
    """What a site steps with, in a round or in fine-tuning.

    Attributes:
        name: `sgd` or `adamw`.
        momentum: of SGD; of AdamW, its beta1.
        weight_decay: of SGD, an L2 penalty on everything; of AdamW, decoupled, and on matrices only: biases and the
            scales of normalisation are not pulled to zero, as is usual for BERT.
    """

    name: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        if self.name not in OPTIMIZERS:
            raise BundleError(
                code="setting-value", key="optimizer", expected=f"one of {', '.join(OPTIMIZERS)}", got=repr(self.name)
            )
        check_rates(momentum=self.momentum, weight_decay=self.weight_decay)
        if self.momentum >= 1:
            raise BundleError(
                code="setting-value", key="momentum", expected="a number from 0 to below 1", got=repr(self.momentum)
            )

    def build(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """A fresh optimiser over `parameters`, with the learning rate `lr`."""
        parameters = list(parameters)
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr, self.momentum, weight_decay=self.weight_decay)
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        present = [group for group in groups if group["params"]]
        return torch.optim.AdamW(present, lr, betas=(self.momentum, BETA2), fused=True)  # one pass over the memory
