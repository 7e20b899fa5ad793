# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""ResNet-18 with group instead of batch normalisation, for small images.

He et al. 2016, https://arxiv.org/abs/1512.03385; GroupNorm because the running statistics of BatchNorm do not
average well over sites whose data differ: Hsieh et al. 2020, https://arxiv.org/abs/1910.00189.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


def _group_norm(num_channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=32, num_channels=num_channels)


class ResNet18(ResNet):
    """Images of shape (batch, 3, height, width), at least 32 x 32, to logits of shape (batch, num_classes).

    The stem is the usual one for CIFAR: a 3 x 3 convolution and no pooling.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes, norm_layer=_group_norm)
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        self.maxpool = nn.Identity()
