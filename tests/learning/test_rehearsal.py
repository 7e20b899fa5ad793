# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from custom.errors import BundleError
from custom.learning.rehearsal import WithoutSingles, check_outputs, trainable, try_steps, undisturbed
from custom.learning.train import LocalBudget, train
from custom.models.small_cnn import SmallCnn
from tests.support import TinyData

CPU = torch.device("cpu")


def points(samples: int) -> TinyData:
    return TinyData(samples=samples).site("site-1", (), 1)


class Images(TinyData):
    """With room for BatchNorm to see several values a channel in one sample."""

    def batches(self, *args: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for inputs, labels in super().batches(*args):
            yield inputs[:, :, None, None].expand(-1, -1, 4, 4), labels


def normed(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), *more, nn.Linear(4, 2))


class Calls(nn.Module):
    """A model whose forward is any function of the inputs and a layer."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(2, 2), function

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.function(self, inputs)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "model",
    [normed(nn.Dropout(0.5)), nn.utils.weight_norm(nn.Linear(2, 2)), nn.utils.spectral_norm(nn.Linear(2, 2))],
    ids=["BatchNorm and dropout", "weight_norm", "spectral_norm"],
)
def test_training_within_leaves_no_trace(model: nn.Module) -> None:
    """weight_norm cannot be copied, since its weight is no leaf."""
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    numbers = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    inputs = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    with undisturbed(model):
        optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
        train(model, iter([(inputs, torch.arange(8) % 2)] * 2), optimizer)
        torch.rand(3), np.random.rand(3), random.random()
        assert not all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(numbers[0], after[0])
    assert numbers[1:] == after[1:]


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda self, x: (self.layer(x), x), "tuple of 2"),
        (lambda self, x: SimpleNamespace(logits=self.layer(x)), "outputs.logits"),
        (lambda self, x: {"logits": self.layer(x)}, "dict"),
        (lambda self, x: self.layer(x).squeeze(), r"\(2,\)"),
        (lambda self, x: self.layer(x)[:, :, None], r"\(1, 2, 1\)"),
        (lambda self, x: self.layer(x)[:, 0], r"\(1,\)"),
        (lambda self, x: self.layer(x)[:, :1], "got 1; set num_classes=2"),
        (lambda self, x: self.layer(x) / 0 * 0, "2 of them NaN"),
        (lambda self, x: self.layer(x).long(), "int64"),
        (lambda self, x: self.layer(x.double()), "RuntimeError: .* \\(test_rehearsal.py line"),
        (lambda self, x: self.layer(x["ids"]), "IndexError"),
        (lambda self, x: self.absent(x), "AttributeError"),
    ],
)
def test_outputs_that_the_loss_cannot_take(function: Any, got: str) -> None:
    with pytest.raises(BundleError, match=got) as caught:
        check_outputs(Calls(function), points(12), CPU)
    assert caught.value.code == "model-unfit"


def test_outputs_are_checked_on_any_split() -> None:
    class OnlyTest(TinyData):
        def size(self, split: str) -> int:
            return self.samples if split == "test" else 0

    with pytest.raises(BundleError, match="set num_classes=2"):
        check_outputs(nn.Linear(2, 1), OnlyTest().site("", (), 1), CPU)
    check_outputs(nn.Linear(2, 1), points(0), CPU)  # nothing is known


def test_weights_that_are_nan_are_named() -> None:
    model = nn.Linear(2, 2)
    model.bias.data[1] = torch.nan
    with pytest.raises(BundleError, match="NaN or infinity in bias") as caught:
        check_outputs(model, points(12), CPU)
    assert caught.value.code == "model-unfit"


def test_a_model_with_nothing_to_train_is_refused() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(BundleError, match="parameters of the model") as caught:
        try_steps(model, points(12), LocalBudget(64), CPU, lambda batch: 0.0)
    assert caught.value.code == "model-unfit"


@pytest.mark.parametrize(
    ("samples", "batch_size", "steps", "sizes"),
    [
        (12, 64, None, [4, 12]),
        (46, 32, None, [4, 14]),
        (64, 32, None, [4]),
        (12, 5, None, [4, 2]),
        (11, 5, None, [4, 1]),
        (11, 5, 2, [4]),
        (11, 5, 3, [4, 1]),
        (3, 2, None, [2, 1]),
        (1, 8, None, [1]),
    ],
)
def test_the_sizes_of_the_first_and_the_last_batch_are_tried(
    samples: int, batch_size: int, steps: int | None, sizes: list[int]
) -> None:
    seen: list[int] = []

    def step(batch: Any) -> float:
        seen.append(len(batch[1]))
        return 0.5

    try_steps(nn.Linear(2, 2), points(samples), LocalBudget(1, steps, batch_size), CPU, step)
    assert seen == sizes


def test_a_loss_that_is_not_finite() -> None:
    with pytest.raises(BundleError) as caught:
        try_steps(nn.Linear(2, 2), points(4), LocalBudget(), CPU, lambda batch: float("nan"))
    assert caught.value.code == "model-unfit"


@pytest.mark.parametrize(
    ("model", "samples", "batch_size", "left_out"),
    [
        (normed(), 11, 5, True),
        (normed(), 12, 5, False),
        (normed(), 10, 5, False),
        (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), 11, 5, False),
    ],
)
def test_a_last_batch_of_one_is_left_out_where_batch_norm_fails(
    model: nn.Module, samples: int, batch_size: int, left_out: bool
) -> None:
    data = points(samples)
    chosen = trainable(model, data, batch_size, CPU)
    assert isinstance(chosen, WithoutSingles) == left_out
    assert (chosen is data) != left_out
    budget = LocalBudget(2, None, batch_size)
    sizes = [len(labels) for _, labels in budget.batches(chosen, CPU, torch.Generator().manual_seed(0))]
    a_pass = [batch_size] * (samples // batch_size) + ([] if left_out else [samples % batch_size])
    assert sizes == 2 * [size for size in a_pass if size]


def test_steps_are_counted_without_what_is_left_out() -> None:
    """Two full batches a pass: five steps take three passes."""
    data = trainable(normed(), points(11), 5, CPU)
    budget = LocalBudget(1, 5, 5)
    sizes = [len(labels) for _, labels in budget.batches(data, CPU, torch.Generator().manual_seed(0))]
    assert sizes == [5] * 5
    assert budget.passes(data) == 3


def test_batch_norm_over_images_takes_one_sample() -> None:
    """Four by four values a channel: it trained before, and must train on the same."""
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 2))
    data = Images(samples=11).site("site-1", (), 1)
    assert trainable(model, data, 5, CPU) is data


def test_frozen_batch_norm_takes_one_sample() -> None:
    model, data = normed(), points(11)
    assert trainable(model, data, 5, CPU, frozen=[model[1]]) is data  # type: ignore[index]


@pytest.mark.parametrize(("samples", "batch_size", "code"), [(1, 5, "data-too-small"), (4, 1, "setting-value")])
def test_where_no_batch_of_two_is_left(samples: int, batch_size: int, code: str) -> None:
    with pytest.raises(BundleError) as caught:
        trainable(normed(), points(samples), batch_size, CPU)
    assert caught.value.code == code
    model = nn.Sequential(nn.Linear(2, 4), nn.GroupNorm(2, 4), nn.Linear(4, 2))  # the remedy
    assert trainable(model, points(samples), batch_size, CPU).size("train") == samples


def test_the_models_of_the_bundle_are_not_tried() -> None:
    data = points(11)
    assert trainable(SmallCnn(), data, 5, CPU) is data  # on inputs that it cannot take
