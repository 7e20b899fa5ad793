# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The mean over the writers, one after the other and all at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from custom.errors import BundleError
from custom.learning import train_writers as module
from custom.learning.cohort import Work
from custom.learning.device import place
from custom.learning.fed_avg import FedAvg
from custom.learning.maml import FirstOrderMaml, HessianFreeMaml
from custom.learning.reptile import Reptile
from custom.learning.train import Aborted
from custom.learning.train_writers import check_trainable, train_writers
from custom.models.emnist_cnn import EmnistCnn
from tests.writers import CPU, small_cnn

SIZES = (25, 7, 20, 12)
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
ALGORITHMS = [FedAvg(2), Reptile(3), FirstOrderMaml(2), HessianFreeMaml(1)]


def images(count, seed):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def works(algorithm, sizes=SIZES):
    for seed, size in enumerate(sizes):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 10, (size,), generator=generator)
        yield Work(images(size, seed), labels, algorithm.draw(torch.arange(size), generator), seed)


def cnn():
    return place(small_cnn().double(), CPU)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
@pytest.mark.parametrize("cohort_size", [64, 3])
def test_all_at_once_is_one_after_the_other(algorithm, cohort_size, monkeypatch):
    """With dropout, and writers of different sizes. In float64, as Adam turns rounding errors of tiny gradients into
    whole steps."""
    monkeypatch.setattr(module, "COHORT_SIZE", cohort_size)
    one, together = (train_writers(cnn(), algorithm, works(algorithm), stacked=stacked) for stacked in (False, True))
    assert max(float(diff.abs().max()) for diff in one.diff) > 1e-4
    for expected, got in zip(one.diff, together.diff, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-6)
    assert together.loss == pytest.approx(one.loss, abs=1e-9)
    assert (one.weight, one.trained) == (together.weight, together.trained)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("algorithm", [ALGORITHMS[0], *ALGORITHMS[2:]], ids=lambda one: type(one).__name__)
def test_also_in_float32_and_on_a_gpu(algorithm, device):
    def moved(double):
        images, labels = double.images.float().to(device), double.labels.to(device)
        return Work(images, labels, double.batches, double.seed)

    one, together = (
        train_writers(
            place(small_cnn(), torch.device(device)), algorithm, map(moved, works(algorithm)), stacked=stacked
        )
        for stacked in (False, True)
    )
    for expected, got in zip(one.diff, together.diff, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_the_job_s_own_model_can_be_stacked():
    torch.manual_seed(0)
    model, algorithm = EmnistCnn(hidden=8).double(), FedAvg(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 4, 1, 28, 28, generator=generator, dtype=torch.float64)
    cohort = [Work(one, torch.arange(4), [torch.arange(4)], seed) for seed, one in enumerate(images)]
    start = {name: value.clone() for name, value in model.state_dict().items()}
    one = train_writers(model, algorithm, cohort, stacked=False)
    model.load_state_dict(start)
    for expected, got in zip(one.diff, train_writers(model, algorithm, cohort, stacked=True).diff, strict=True):
        torch.testing.assert_close(got, expected)


def test_the_mean_is_weighted_by_samples_or_not():
    """Against writers trained alone: FedAvg weighs by samples, meta-learning does not."""
    for algorithm, weights in ((FedAvg(1), SIZES), (Reptile(2), (1, 1, 1, 1))):
        alone = [train_writers(cnn(), algorithm, [work], stacked=False).diff for work in works(algorithm)]
        update = train_writers(cnn(), algorithm, works(algorithm), stacked=False)
        assert update.weight == sum(weights)
        losses = [train_writers(cnn(), algorithm, [work], stacked=False).loss for work in works(algorithm)]
        assert update.loss == pytest.approx(sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights))
        for index, got in enumerate(update.diff):
            expected = sum(weight * diff[index] for weight, diff in zip(weights, alone, strict=True)) / sum(weights)
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("stacked", [False, True])
def test_a_writer_whose_update_is_not_finite_is_dropped(stacked):
    algorithm = FedAvg(1)
    good = list(works(algorithm))
    bad = Work(torch.full_like(good[1].images, torch.nan), good[1].labels, good[1].batches, 1)
    update = train_writers(cnn(), algorithm, [good[0], bad, *good[2:]], stacked=stacked)
    expected = train_writers(cnn(), algorithm, [good[0], *good[2:]], stacked=stacked)
    assert (update.dropped, update.trained, update.weight) == (1, 3, 57.0)
    assert update.loss == pytest.approx(expected.loss)
    for got, wanted in zip(update.diff, expected.diff, strict=True):
        torch.testing.assert_close(got, wanted)


def test_without_writers_there_is_nothing_to_contribute():
    update = train_writers(cnn(), FedAvg(), [], stacked=False)
    assert (update.diff, update.weight, update.trained) == ([], 0.0, 0)


def test_all_dropped_is_nothing_to_contribute():
    algorithm = FedAvg(1)
    (first, *_) = works(algorithm)
    update = train_writers(
        cnn(), algorithm, [Work(first.images * torch.nan, first.labels, first.batches, 0)], stacked=False
    )
    assert (update.diff, update.weight, update.dropped) == ([], 0.0, 1)


def test_stops_between_writers_when_told():
    asked = []

    def should_stop():
        asked.append(True)
        return len(asked) > 2

    with pytest.raises(Aborted):
        train_writers(cnn(), FedAvg(1), works(FedAvg(1)), stacked=False, should_stop=should_stop)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), r"1\.num_batches_tracked.*GroupNorm"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), r"model 1: .*got Dropout; use custom.*KeyedDropout"),
        (nn.Sequential(nn.Linear(2, 2).requires_grad_(False)), r"0\.weight: .*one that is frozen"),
    ],
)
def test_models_that_writers_cannot_train_are_refused(model, reason):
    with pytest.raises(BundleError, match=reason):
        check_trainable(model)


def test_others_are_not():
    check_trainable(EmnistCnn())
    check_trainable(nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2), nn.Dropout(0.0)))
