# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from custom.errors import BundleError
from custom.learning.device import has_bfloat16
from custom.learning.optimizer import LocalOptimizer
from custom.learning.schedule import learning_rate
from custom.learning.train import train
from tests.support import TinyData


def test_adamw_steps_by_the_learning_rate_and_pulls_matrices_only() -> None:
    """The first step of Adam is lr * sign(gradient); before it, a matrix shrinks by lr * weight_decay."""
    matrix, bias = nn.Parameter(torch.tensor([[2.0]])), nn.Parameter(torch.tensor([2.0]))
    matrix.grad, bias.grad = torch.tensor([[3.0]]), torch.tensor([-0.5])
    LocalOptimizer("adamw", weight_decay=0.5).build(iter([matrix, bias]), lr=0.1).step()
    assert matrix.item() == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1)
    assert bias.item() == pytest.approx(2 + 0.1)


def test_the_momentum_of_adamw_is_its_beta1() -> None:
    """Gradients 1, then 0: the mean is 0.1 * 0.9 / (1 - 0.81), over sqrt(0.000999 / 0.001999)."""
    for momentum, second in ((0.0, 0.0), (0.9, (0.09 / 0.19) / (0.000999 / 0.001999) ** 0.5)):
        weight = nn.Parameter(torch.tensor([[0.0]]))
        optimizer = LocalOptimizer("adamw", momentum).build([weight], lr=1.0)
        for gradient in (1.0, 0.0):
            weight.grad = torch.tensor([[gradient]])
            optimizer.step()
        assert weight.item() == pytest.approx(-1.0 - second, rel=1e-5)


def test_adamw_over_biases_alone() -> None:
    bias = nn.Parameter(torch.tensor([2.0]))
    bias.grad = torch.tensor([1.0])
    LocalOptimizer("adamw").build([bias], lr=0.1).step()
    assert bias.item() == pytest.approx(1.9)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"name": "adam"}, "optimizer: expected one of sgd, adamw, got 'adam'"),
        ({"momentum": 1.0}, "momentum: expected a number from 0 to below 1, got 1.0"),
        ({"weight_decay": -1}, "weight_decay: expected a finite number of at least 0, got -1"),
    ],
)
def test_nonsense_is_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        LocalOptimizer(**args).check()
    assert message in str(caught.value)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (5, 5, 2)])
def test_accumulated_batches_are_one_big_batch(sizes: tuple[int, ...]) -> None:
    """Two steps: on the first two batches together, and on the one that is left."""
    data = TinyData(samples=12).site("site-1", ("site-1",), 0)
    pieces = list(zip(data.inputs.split(list(sizes)), data.labels.split(list(sizes)), strict=True))
    two = sum(sizes[:2])
    big = [(data.inputs[:two], data.labels[:two]), (data.inputs[two:12], data.labels[two:12])]
    models = [nn.Linear(2, 2), nn.Linear(2, 2)]
    models[1].load_state_dict(models[0].state_dict())
    losses = [
        train(model, iter(batches), torch.optim.SGD(model.parameters(), 0.5, 0.9), accumulate_batches=number)
        for model, batches, number in ((models[0], pieces, 2), (models[1], big, 1))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(models[0].weight, models[1].weight)


def test_the_learning_rate_warms_up_by_hand() -> None:
    assert [learning_rate(0.3, "constant", r, 10, 2) for r in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.3])
    assert learning_rate(1.0, "cosine", 2, 4, 3) == pytest.approx(0.5 * 3 / 4)
    for bad in (-1, 0.5, True):
        with pytest.raises(BundleError, match="lr_warmup_rounds: expected a whole number from 0"):
            learning_rate(1.0, "constant", 0, 1, bad)  # type: ignore[arg-type]


def test_mixed_precision_is_close_to_float32_and_changes_nothing_where_the_hardware_has_none() -> None:
    data = TinyData(samples=12).site("site-1", ("site-1",), 0)
    models = [nn.Linear(2, 2), nn.Linear(2, 2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, mixed in zip(models, (False, True), strict=True):
        batches = iter([(data.inputs, data.labels)])
        train(model, batches, torch.optim.SGD(model.parameters(), 0.5), mixed_precision=mixed)
    assert models[1].weight.dtype == torch.float32
    assert torch.equal(models[0].weight, models[1].weight) != has_bfloat16(data.inputs)
    torch.testing.assert_close(models[0].weight, models[1].weight, rtol=0.02, atol=0.02)
