# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Multinomial logistic regression on pixels; with two classes, the model that tells 3 from 7 in many a tutorial."""

from __future__ import annotations

import torch
from torch import nn


class LinearClassifier(nn.Module):
    """Images of shape (batch, ...), `num_inputs` values each, to logits of shape (batch, num_classes)."""

    def __init__(self, num_classes: int = 10, num_inputs: int = 28 * 28) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits; the loss adds the softmax."""
        return self.linear(images.flatten(1))
