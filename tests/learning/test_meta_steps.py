# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What one writer does, step by step: by hand on a quadratic, and against tests/reference/meta_learning.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from custom.errors import BundleError
from custom.learning.cohort import Work, draw_passes
from custom.learning.fed_avg import FedAvg
from custom.learning.maml import FirstOrderMaml, HessianFreeMaml
from custom.learning.one_copy import OneCopy
from custom.learning.reptile import Reptile
from tests.reference import meta_learning as reference

ROWS = torch.arange(23)


class Quadratic:
    """Copies of w with the loss s (w - c)^2 / 2 on each batch (s, c), so that the gradient is s (w - c)."""

    stacked = False

    def __init__(self, w: float, batches: list[tuple[float, float]]) -> None:
        self.parameters = [torch.tensor([w], dtype=torch.float64, requires_grad=True)]
        self.batches, self.steps = batches, len(batches)

    def backward(self, batch: int) -> None:
        scale, centre = self.batches[batch]
        self.parameters[0].grad = scale * (self.parameters[0].detach() - centre)


def after(algorithm, w, batches):
    copies = Quadratic(w, batches)
    algorithm.train(copies)
    return float(copies.parameters[0].detach())


def test_fed_avg_by_hand():
    # 2 - 0.1 * 1 * (2 - 0) = 1.8;  1.8 - 0.1 * 2 * (1.8 - 1) = 1.64
    assert after(FedAvg(local_lr=0.1), 2.0, [(1, 0), (2, 1)]) == pytest.approx(1.64)


def test_reptile_by_hand():
    # Adam without momentum: the first step is lr * sign(g). w = 2, g = 2 -> 1.9. Then g = 2 (1.9 - 1) = 1.8 and
    # v = (0.999 * 0.001 * 4 + 0.001 * 3.24) / (1 - 0.999^2) = 3.619809905, so w = 1.9 - 0.1 * 1.8 / 1.902579.
    assert after(Reptile(inner_lr=0.1), 2.0, [(1, 0), (2, 1)]) == pytest.approx(1.9 - 0.18 / 1.9025798, abs=1e-7)


def test_first_order_maml_by_hand():
    # w~ = 2 - 0.1 * 1 * 2 = 1.8;  g(w~; D') = 2 (1.8 - 1) = 1.6;  w = 2 - 0.5 * 1.6
    assert after(FirstOrderMaml(inner_lr=0.1, outer_lr=0.5), 2.0, [(1, 0), (2, 1)]) == pytest.approx(1.2)


def test_hessian_free_maml_by_hand():
    # v = 1.6 as above, d = s'' v = 3 * 1.6 = 4.8 exactly, whatever the centre;  w = 2 - 0.5 (1.6 - 0.1 * 4.8)
    algorithm = HessianFreeMaml(inner_lr=0.1, outer_lr=0.5)
    assert after(algorithm, 2.0, [(1, 0), (2, 1), (3, -7)]) == pytest.approx(1.44)


def test_meta_steps_follow_each_other():
    # the second step starts from 1.2: w~ = 1.2 - 0.1 * 1.2 = 1.08, g' = 2 (1.08 - 1) = 0.16, w = 1.2 - 0.08
    algorithm = FirstOrderMaml(inner_lr=0.1, outer_lr=0.5)
    assert after(algorithm, 2.0, [(1, 0), (2, 1), (1, 0), (2, 1)]) == pytest.approx(1.12)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (FedAvg(2, 0.1, 5), lambda w, b: reference.fed_avg(w, b, 0.1)),
        (Reptile(7, 0.01, 5), lambda w, b: reference.reptile(w, b, 0.01)),
        (FirstOrderMaml(3, 0.1, 0.2, 5), lambda w, b: reference.first_order_maml(w, b, 0.1, 0.2)),
        (HessianFreeMaml(3, 0.1, 0.2, 5), lambda w, b: reference.maml(w, b, 0.1, 0.2)),
    ],
    ids=["fed_avg", "reptile", "first_order", "hessian_free"],
)
def test_against_the_reference(algorithm, expected):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(23, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (23,), generator=generator)
    model = nn.Linear(4, 3, bias=False).double()
    start = model.weight.detach().clone()
    batches = algorithm.draw(ROWS, generator)
    algorithm.train(OneCopy(model, [start], [Work(images, labels, batches, 0)]))
    wanted = expected(start.numpy(), [(images[rows].numpy(), labels[rows].numpy()) for rows in batches])
    assert np.abs(wanted - start.numpy()).max() > 1e-3
    np.testing.assert_allclose(model.weight.detach().numpy(), wanted, atol=1e-7)


def test_the_number_of_batches():
    def count(algorithm):
        return [len(rows) for rows in algorithm.draw(ROWS, torch.Generator())]

    assert count(FedAvg(2, batch_size=10)) == [10, 10, 3, 10, 10, 3]
    assert count(Reptile(4, batch_size=10)) == [10, 10, 3, 10]
    assert count(FirstOrderMaml(2, batch_size=10)) == [10, 10, 3, 10]
    assert count(HessianFreeMaml(1, batch_size=10)) == [10, 10, 3]


def test_each_pass_has_every_row_once_in_an_order_of_its_own():
    batches = draw_passes(ROWS, 10, torch.Generator().manual_seed(0))
    first, second = (torch.cat([next(batches) for _ in range(3)]) for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == ROWS.tolist()
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        (FedAvg(local_epochs=0), "local_epochs"),
        (FedAvg(batch_size=True), "batch_size"),
        (Reptile(inner_steps=0), "inner_steps"),
        (Reptile(inner_lr=float("nan")), "inner_lr"),
        (FirstOrderMaml(outer_lr=-1.0), "outer_lr"),
        (HessianFreeMaml(delta=0.0), "delta"),
    ],
)
def test_bad_settings_are_named(algorithm, key):
    with pytest.raises(BundleError, match=key):
        algorithm.check()
