# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from custom.data.site_data import Batch
from custom.errors import BundleError
from custom.learning.fine_tune import fine_tune, only_training, pull_towards
from custom.learning.train import LocalBudget, train

CPU = torch.device("cpu")


class TwoPoints:
    """Training pulls towards class 1 for x = 1; validation holds what the test asks for."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels

    def describe(self) -> dict[str, list[int]]:
        return {"input_shape": [1]}

    def size(self, split: str) -> int:
        return 1

    def batches(self, split, batch_size, device, generator=None):  # type: ignore[no-untyped-def]
        labels = self.labels if split == "validation" else [1]
        yield torch.ones(len(labels), 1), torch.tensor(labels)


def two_parameters(a: float, b: float) -> nn.Linear:
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[a], [b]])
    return model


def epochs(data: TwoPoints, number: int) -> Iterator[Iterator[Batch]]:
    return LocalBudget(number, None, 1).epochs(data, CPU, torch.Generator())  # type: ignore[arg-type]


def tune(model: nn.Module, data: TwoPoints, number: int, lr: float, patience: int = 1):  # type: ignore[no-untyped-def]
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return fine_tune(model, data, epochs(data, number), optimizer, CPU, patience=patience, frozen=[])  # type: ignore[arg-type]


def test_two_parameters_by_hand() -> None:
    """Logits (0.2, 0), label 1: p = e^0.2 / (1 + e^0.2) = 0.549834; one step of lr 1 moves both weights by p.

    The prediction turns from class 0 to class 1, so epoch 1 is the best.
    """
    model = two_parameters(0.2, 0.0)
    result = tune(model, TwoPoints([1]), number=1, lr=1.0)
    assert model.weight.flatten().tolist() == pytest.approx([0.2 - 0.549834, 0.549834], abs=1e-6)
    assert result.best_epoch == 1
    assert [scores["val_accuracy"] for scores in result.history] == [0.0, 1.0]


def test_a_model_that_only_gets_worse_is_given_back_as_it_was() -> None:
    """Validation says class 0 and training class 1: epoch 0 is the best, and patience 2 stops after two epochs."""
    model = two_parameters(0.2, 0.0)
    result = tune(model, TwoPoints([0]), number=9, lr=1.0, patience=2)
    assert result.best_epoch == 0
    assert len(result.history) == 3
    assert torch.equal(model.weight, torch.tensor([[0.2], [0.0]]))


def test_the_first_of_equal_epochs_is_kept() -> None:
    model = two_parameters(0.2, 0.0)
    result = tune(model, TwoPoints([1]), number=5, lr=1.0, patience=3)
    assert result.best_epoch == 1
    assert len(result.history) == 5  # epochs 0 to 4: three without a better one


def test_the_pull_by_hand() -> None:
    """Ditto: w = 0.5 after leaving w0 = 0; gradient 0 from the loss, 0.1 * (0.5 - 0) from the pull."""
    weight = nn.Parameter(torch.zeros(1))
    add = pull_towards([weight], 0.1)
    weight.data += 0.5
    weight.grad = torch.tensor([2.0])
    add()
    assert weight.grad.item() == pytest.approx(2.05)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.mark.parametrize("train_only", ["^2", "2.weight"])
def test_frozen_bytes_stay_identical(train_only: str) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [(torch.randn(4, 1), torch.tensor([0, 1, 0, 1])) for _ in range(3)]
    with only_training(model, train_only) as (parameters, frozen):
        train(model, iter(batches), torch.optim.SGD(parameters, lr=0.5, weight_decay=0.1), frozen=frozen)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("2.")} & {
        "2.weight",
        *(["2.bias"] * (train_only == "^2")),
    }
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_batch_norm_learns_with_its_own_parameters() -> None:
    model = network()
    before = model[1].running_mean.clone()
    with only_training(model, "") as (parameters, frozen):
        train(
            model, iter([(torch.randn(4, 1), torch.zeros(4).long())]), torch.optim.SGD(parameters, 0.1), frozen=frozen
        )
    assert not torch.equal(model[1].running_mean, before)


def test_parameters_that_the_model_froze_itself_stay_frozen() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    with only_training(model, "0|2") as (parameters, _):
        assert not any(parameter is model[0].weight for parameter in parameters)
    assert not model[0].weight.requires_grad


@pytest.mark.parametrize(
    ("train_only", "message"),
    [("fc9", "train_only: expected a match among 0.weight, 0.bias"), ("(", "expected a regular expression")],
)
def test_a_pattern_that_matches_nothing_is_named(train_only: str, message: str) -> None:
    with pytest.raises(BundleError, match=message), only_training(network(), train_only):
        pass


def test_steps_make_a_last_part_epoch() -> None:
    from tests.support import TinyData

    data = TinyData(samples=10).site("site-1", ("site-1",), 0)
    sizes = [len(list(part)) for part in LocalBudget(1, 7, 4).epochs(data, CPU, torch.Generator())]
    assert sizes == [3, 3, 1]
