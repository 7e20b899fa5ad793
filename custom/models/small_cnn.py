# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A small convolutional network for grey images of any size, such as digits and chest X-rays.

GroupNorm in place of BatchNorm, whose running statistics do not average well over sites: see `custom.models.resnet18`.
"""

from __future__ import annotations

import torch
from torch import nn

WIDTHS = (16, 32, 64)
GROUPS = 8
POOLED = 3  # pixels a side of what the last layer sees


class SmallCnn(nn.Module):
    """Images of shape (batch, 1, side, side), `side` at least 16, to logits of shape (batch, num_classes).

    29,290 parameters for 10 classes.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for before, after in zip((1, *WIDTHS), WIDTHS, strict=False):
            # Pooled first, so that the rest has a quarter of the work.
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(2), nn.GroupNorm(GROUPS, after), nn.ReLU()]
        self.features = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(POOLED))
        self.head = nn.Linear(WIDTHS[-1] * POOLED**2, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits; the loss adds the softmax."""
        return self.head(self.features(images).flatten(1))
