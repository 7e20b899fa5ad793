# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The image models against tests/reference/layers.py, with random weights in every layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from custom.models.emnist_cnn import EmnistCnn
from custom.models.lenet import LeNet
from custom.models.linear import LinearClassifier
from custom.models.resnet18 import ResNet18
from custom.models.small_cnn import SmallCnn
from tests.reference.layers import (
    Array,
    Weights,
    adaptive_mean,
    convolve,
    group_norm,
    linear,
    max_pool,
    relu,
)


def lenet(image: Array, w: Weights) -> Array:
    """Two convolutions of 5 x 5, each halved by pooling, and three fully connected layers."""
    hidden = max_pool(relu(convolve(image, w, "conv1")))
    hidden = max_pool(relu(convolve(hidden, w, "conv2")))
    return linear(relu(linear(relu(linear(hidden, w, "fc1")), w, "fc2")), w, "fc3")


def emnist_cnn(image: Array, w: Weights) -> Array:
    """Two convolutions of 5 x 5 that keep the size, each halved by pooling, and two fully connected layers."""
    hidden = max_pool(relu(convolve(image, w, "conv1", padding=2)))
    hidden = max_pool(relu(convolve(hidden, w, "conv2", padding=2)))
    return linear(relu(linear(hidden, w, "fc1")), w, "fc2")  # the dropout does nothing in evaluation


def small_cnn(image: Array, w: Weights) -> Array:
    """Three times: convolution of 3 x 3, pooling, 8 groups normalised, ReLU; then means over 3 x 3 cells."""
    for place in (0, 4, 8):
        image = max_pool(convolve(image, w, f"features.{place}", padding=1))
        image = relu(group_norm(image, w, f"features.{place + 2}", groups=8))
    return linear(adaptive_mean(image, 3), w, "head")


def resnet18(image: Array, w: Weights) -> Array:
    """He et al. 2016, table 1 and figure 2, for small images: a stem of 3 x 3 without pooling; 32 groups normalised."""
    hidden = relu(group_norm(convolve(image, w, "conv1", padding=1), w, "bn1", 32))
    for layer in range(1, 5):
        for block in range(2):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            out = relu(group_norm(convolve(hidden, w, f"{name}.conv1", stride, 1), w, f"{name}.bn1", 32))
            out = group_norm(convolve(out, w, f"{name}.conv2", padding=1), w, f"{name}.bn2", 32)
            if stride == 2:
                hidden = convolve(hidden, w, f"{name}.downsample.0", stride)
                hidden = group_norm(hidden, w, f"{name}.downsample.1", 32)
            hidden = relu(out + hidden)
    return linear(hidden.mean(axis=(1, 2)), w, "fc")


MODELS = [
    (LeNet, (3, 32, 32), lenet),
    (ResNet18, (3, 32, 32), resnet18),
    (EmnistCnn, (1, 28, 28), emnist_cnn),
    (SmallCnn, (1, 28, 28), small_cnn),
    (SmallCnn, (1, 37, 50), small_cnn),
    (LinearClassifier, (1, 28, 28), lambda image, w: linear(image, w, "linear")),
]


@pytest.mark.parametrize(("kind", "shape", "reference"), MODELS)
def test_logits_are_those_of_the_definition(
    kind: Callable[..., nn.Module], shape: tuple[int, ...], reference: Callable[[Array, Weights], Array]
) -> None:
    """In float64, so that no rounding hides a difference; scales and shifts are not left at 1 and 0."""
    model, generator = kind(num_classes=7).double().eval(), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / fan_in**0.5
    images = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        logits = model(images)
    expected = np.stack([reference(image, weights) for image in images.numpy()])
    assert np.abs(expected[0] - expected[1]).max() > 0.01  # the images matter
    np.testing.assert_allclose(logits, expected, rtol=1e-8, atol=1e-8)


def test_lenet_has_the_62006_parameters_of_the_tutorial() -> None:
    assert sum(p.numel() for p in LeNet().parameters()) == 62_006


def test_resnet18_has_no_batch_normalisation() -> None:
    kinds = {type(module) for module in ResNet18().modules()}
    assert nn.GroupNorm in kinds
    assert nn.BatchNorm2d not in kinds
