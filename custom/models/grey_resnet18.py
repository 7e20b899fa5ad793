# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""torchvision's ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385) for grey images, pretrained if wanted.

Unlike `custom.models.resnet18` it has BatchNorm and the stem for large images, so that ImageNet weights fit. The
running statistics of BatchNorm are averaged over the sites like weights; its batch counters stay those of the server.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from custom.data.folders import without_tilde
from custom.errors import BundleError
from custom.learning.weights import Weights, get_weights, load_weights, set_weights

SMALLEST_SIDE = 64  # below 33, BatchNorm would have one value a channel where a batch has one image


class GreyResNet18(ResNet):
    """Images of shape (batch, 1, side, side), `side` at least 64, to logits of shape (batch, num_classes).

    A constructor that raises would end the FLARE process, so what goes wrong here is kept, and raised by the first
    `forward`: that is before any training.

    Args:
        num_classes: width of the head.
        pretrained: a file at every site with a state_dict of torchvision's ResNet-18, such as `resnet18-f37072fd.pth`,
            or of this class; empty begins untrained. The head is taken where the number of classes is the same.
    """

    def __init__(self, num_classes: int = 2, pretrained: str = "") -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
        self.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
        self._failure: BundleError | None = None
        if pretrained:
            try:
                load_pretrained(self, _path(pretrained))
            except BundleError as error:
                self._failure = error

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits; the loss adds the softmax.

        Raises:
            BundleError: the pretrained weights could not be read, or the images are too small.
        """
        if self._failure is not None:
            raise self._failure
        if (side := min(images.shape[-2:])) < SMALLEST_SIDE:
            raise BundleError(
                code="setting-value",
                key="image_size",
                expected=f"at least {SMALLEST_SIDE} pixels for GreyResNet18",
                got=side,
                remedy=f"set image_size={SMALLEST_SIDE}",
            )
        return super().forward(images)


def load_pretrained(model: GreyResNet18, path: Path) -> None:
    """Loads the weights of a ResNet-18 for colour or grey images into `model`, safely.

    A grey image in all three channels gives what the sum of the first layer's weights over the channels gives.

    Raises:
        BundleError: the file is missing or damaged, holds more than tensors, or is no ResNet-18.
    """
    try:
        own, weights = get_weights(model), load_weights(path)
        first = weights.get("conv1.weight")
        if first is not None and first.ndim == 4:
            weights["conv1.weight"] = first.sum(axis=1, keepdims=True)
        set_weights(model, _left_as_they_are(own, weights) | weights)
    except BundleError as error:
        raise BundleError(
            "is not a ResNet-18 that can be loaded",
            code="model-file-unreadable",
            key=f"pretrained {path}",
            got=str(error),
            remedy="give a file with a state_dict of torchvision.models.resnet18",
        ) from error


def _path(pretrained: object) -> Path:
    if not isinstance(pretrained, str):
        raise BundleError(
            code="setting-value",
            key="pretrained",
            expected="the path of a file, or nothing",
            got=repr(pretrained),
            remedy="correct it in config_fed_client.json",
        )
    return without_tilde(pretrained)


def _left_as_they_are(own: Weights, weights: Weights) -> Weights:
    """What a good file may lack: BatchNorm's counters, and the head, which is taken out of `weights` if it differs."""
    if "fc.weight" in weights and weights["fc.weight"].shape != own["fc.weight"].shape:
        del weights["fc.weight"], weights["fc.bias"]
    names = [name for name in own if name.endswith("num_batches_tracked") or name.startswith("fc.")]
    return {name: own[name] for name in names}
