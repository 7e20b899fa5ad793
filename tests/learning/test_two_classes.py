# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""AUC, sensitivity, specificity and class weights, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from custom.errors import BundleError
from custom.learning.class_weights import balanced, check_class_weights, count_classes
from custom.learning.evaluate import evaluate
from custom.learning.train import train
from custom.learning.two_classes import area_under_roc, two_class_metrics


def auc(scores: list[float], labels: list[int]) -> float | None:
    return area_under_roc(torch.tensor(scores), torch.tensor(labels))


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 3 / 4),  # 0.35 > 0.1; 0.8 > 0.1, 0.4
        ([1.0, 2.0, 3.0], [0, 1, 1], 1.0),
        ([3.0, 2.0, 1.0], [0, 1, 1], 0.0),
        ([5.0, 5.0, 5.0], [0, 1, 1], 1 / 2),
        ([1.0, 2.0, 2.0, 3.0], [0, 0, 1, 1], 3.5 / 4),  # one tie
        ([2.0, 2.0, 1.0, 2.0, 3.0], [1, 0, 0, 1, 0], (0.5 + 1 + 0 + 0.5 + 1 + 0) / 6),
    ],
)
def test_auc_counts_pairs_and_half_of_ties(scores: list[float], labels: list[int], expected: float) -> None:
    assert auc(scores, labels) == pytest.approx(expected)


def test_auc_is_that_of_all_pairs() -> None:
    """Against the definition, on many scores of few values."""
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randint(0, 9, (200,), generator=generator), torch.randint(0, 2, (200,), generator=generator)
    positive, negative = scores[labels == 1, None], scores[labels == 0]
    pairs = (positive > negative).double() + (positive == negative).double() / 2
    assert area_under_roc(scores.float(), labels) == pytest.approx(float(pairs.mean()))


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_has_no_auc(labels: list[int]) -> None:
    assert auc([0.5] * len(labels), labels) is None


def test_metrics_by_hand() -> None:
    """Positive samples score 2, -1 and 1, negative ones 0 (a tie of the logits is class 0) and 3."""
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.0, 1.0], [7.0, 7.0], [0.0, 3.0]])
    metrics = two_class_metrics(logits, torch.tensor([1, 1, 1, 0, 0]))
    assert metrics == pytest.approx(
        {"positives": 3, "negatives": 2, "sensitivity": 2 / 3, "specificity": 1 / 2, "auc": 2 / 6}
    )


def test_a_class_without_samples_is_left_out() -> None:
    metrics = two_class_metrics(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0]))
    assert metrics == {"positives": 0, "negatives": 2, "specificity": 0.5}


def test_only_models_with_two_outputs_have_them() -> None:
    batch = (torch.ones(4, 3), torch.tensor([0, 1, 1, 0]))
    assert {name for name in evaluate(nn.Linear(3, 2), [batch], "val_") if "accuracy" not in name} == {
        "val_loss", "val_auc", "val_sensitivity", "val_specificity", "val_positives", "val_negatives",
    }  # fmt: skip
    assert set(evaluate(nn.Linear(3, 5), [batch], "val_")) == {"val_accuracy", "val_loss"}


def test_balanced_weights_by_hand() -> None:
    """3 of class 0 and 1 of class 2: 4 / (2 * 3) and 4 / (2 * 1); a sample weighs 1 on average."""
    assert balanced(torch.tensor([3, 0, 1])).tolist() == pytest.approx([2 / 3, 0, 2])
    assert balanced(torch.tensor([0, 5])).tolist() == [0, 1]


def test_classes_are_counted_over_batches() -> None:
    batches = [(None, torch.tensor([0, 2])), (None, torch.tensor([2]))]
    assert count_classes(batches, 4).tolist() == [1, 0, 2, 0]


def test_a_weighted_step_by_hand() -> None:
    """Logits (0, 0): each sample has a loss of log 2 and a gradient of 1/2 x at either row; weights 2 and 1/2."""
    model = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(model.weight)
    batch = (torch.tensor([[1.0], [1.0]]), torch.tensor([0, 1]))
    weights = torch.tensor([2.0, 0.5])
    loss = train(model, iter([batch]), torch.optim.SGD(model.parameters(), lr=1.0), class_weights=weights)
    assert loss == pytest.approx((2 + 0.5) / 2 * math.log(2))
    assert model.weight.flatten().tolist() == pytest.approx([(2 * 0.5 - 0.5 * 0.5) / 2, (0.5 * 0.5 - 2 * 0.5) / 2])


@pytest.mark.parametrize("bad", ["auto", True, None])
def test_other_class_weights_are_refused(bad: object) -> None:
    with pytest.raises(BundleError, match="class_weights: expected one of none, balanced"):
        check_class_weights(bad)
