# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from torch import nn

from custom.models.lenet import LeNet
from custom.models.resnet18 import ResNet18


def test_lenet_has_the_62006_parameters_of_the_tutorial() -> None:
    assert sum(p.numel() for p in LeNet().parameters()) == 62_006


def test_resnet18_has_no_batch_normalisation() -> None:
    kinds = {type(module) for module in ResNet18().modules()}
    assert nn.GroupNorm in kinds
    assert nn.BatchNorm2d not in kinds


@pytest.mark.parametrize("model", [LeNet, ResNet18])
def test_logits(model: type[nn.Module]) -> None:
    network = model(num_classes=7)  # type: ignore[call-arg]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
