# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The two-convolution network for FEMNIST of LEAF (Caldas et al. 2018, https://arxiv.org/abs/1812.01097).

Also that of McMahan et al. 2017 for MNIST, with the dropout that Jiang et al. 2019 (https://arxiv.org/abs/1909.12488)
use for personalisation.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from custom.models.keyed_dropout import KeyedDropout


class EmnistCnn(nn.Module):
    """Images of shape (batch, 1, 28, 28) to logits of shape (batch, num_classes).

    Args:
        num_classes: 10 for digits, 62 for all of FEMNIST; 3,274,634 parameters with 10.
        hidden: width of the fully connected layer.
        dropout: before the last layer.
    """

    def __init__(self, num_classes: int = 10, hidden: int = 1024, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc1 = nn.Linear(64 * 7 * 7, hidden)
        self.dropout = KeyedDropout(dropout)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits; the loss adds the softmax."""
        maps = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        maps = functional.max_pool2d(functional.relu(self.conv2(maps)), 2)
        hidden = functional.relu(self.fc1(maps.flatten(1)))
        return self.fc2(self.dropout(hidden))
