# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A model of any size for benchmarks/scaling.py, which puts this file into a job; not made for accuracy."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

WIDTH = 1024  # so that the tensors are as large as those of an encoder such as BERT


class Wide(nn.Module):
    """Images of shape (batch, 3, 32, 32) to logits, through linear layers of 1.05 M parameters each.

    Args:
        layers: of them; there are 3.2 M parameters besides.
        num_classes: of the images.
    """

    def __init__(self, layers: int = 18, num_classes: int = 10) -> None:
        super().__init__()
        widths = [3 * 32 * 32, *[WIDTH] * (layers + 1)]
        parts: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            parts += [nn.Linear(before, after), nn.ReLU()]
        self.body, self.head = nn.Sequential(*parts), nn.Linear(WIDTH, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits; the loss adds the softmax."""
        return self.head(self.body(images))
