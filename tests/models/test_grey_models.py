# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The models for grey images, and pretrained weights that are right, foreign, damaged or poisoned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from custom.errors import BundleError
from custom.models.grey_resnet18 import GreyResNet18
from custom.models.linear import LinearClassifier
from custom.models.small_cnn import SmallCnn
from tests.poisoned import Touch


@pytest.mark.parametrize("side", [16, 28, 64, 100])
def test_small_cnn_takes_any_size(side: int) -> None:
    assert SmallCnn(num_classes=7)(torch.zeros(2, 1, side, side)).shape == (2, 7)


def test_small_cnn_has_29290_parameters() -> None:
    """Convolutions 160 + 4,640 + 18,496, scales and shifts 2 (16 + 32 + 64), head 576 * 10 + 10."""
    assert sum(p.numel() for p in SmallCnn().parameters()) == 160 + 4640 + 18496 + 224 + 5770 == 29290


def test_linear_is_one_layer() -> None:
    model = LinearClassifier(num_classes=2)
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 2)
    assert sum(p.numel() for p in model.parameters()) == 2 * 784 + 2


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[torchvision.models.ResNet, Path]:
    """torchvision's own, with random weights, as a file."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(model.state_dict(), path)
    return model, path


def test_a_grey_image_gives_what_it_gives_in_three_channels(
    pretrained: tuple[torchvision.models.ResNet, Path],
) -> None:
    original, path = pretrained
    model = GreyResNet18(num_classes=1000, pretrained=str(path)).eval()
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(model(images), original(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_a_head_of_other_classes_is_new(pretrained: tuple[torchvision.models.ResNet, Path]) -> None:
    original, path = pretrained
    model = GreyResNet18(num_classes=2, pretrained=str(path))
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 2)
    assert torch.equal(model.layer4[1].conv2.weight, original.layer4[1].conv2.weight)


def test_older_files_without_counters_and_our_own_are_fine(
    pretrained: tuple[torchvision.models.ResNet, Path], tmp_path: Path
) -> None:
    state = {k: v for k, v in pretrained[0].state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    model = GreyResNet18(pretrained=str(tmp_path / "old.pth"))
    torch.save({"model": model.state_dict()}, tmp_path / "own.pt")
    again = GreyResNet18(pretrained=str(tmp_path / "own.pt"))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("kind", ["absent", "cut", "poisoned", "foreign", "partial"])
def test_what_cannot_be_loaded_is_an_error_before_any_training(
    pretrained: tuple[torchvision.models.ResNet, Path], tmp_path: Path, kind: str
) -> None:
    path, marker = tmp_path / f"{kind}.pth", tmp_path / "executed"
    state = pretrained[0].state_dict()
    if kind == "cut":
        path.write_bytes(pretrained[1].read_bytes()[:1000])
    elif kind == "poisoned":
        torch.save({"model": Touch(marker)}, path)
    elif kind == "foreign":
        torch.save(SmallCnn().state_dict(), path)
    elif kind == "partial":
        torch.save({k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}, path)
    model = GreyResNet18(pretrained=str(path))
    with pytest.raises(BundleError, match=rf"pretrained .*{kind}.pth: is not a ResNet-18 that can be loaded"):
        model(torch.zeros(1, 1, 32, 32))
    assert not marker.exists()


@pytest.mark.parametrize("pretrained", [3, True, ["resnet18.pth"], {"path": "resnet18.pth"}])
def test_what_is_not_a_path_is_an_error_before_any_training(pretrained: object) -> None:
    model = GreyResNet18(pretrained=pretrained)  # the constructor never raises
    with pytest.raises(BundleError) as caught:
        model(torch.zeros(1, 1, 64, 64))
    assert (caught.value.code, caught.value.key) == ("setting-value", "pretrained")


def test_images_that_are_too_small_are_named() -> None:
    with pytest.raises(BundleError, match="image_size: expected at least 64 pixels for GreyResNet18, got 28; set"):
        GreyResNet18()(torch.zeros(1, 1, 28, 28))
