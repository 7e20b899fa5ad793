# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import math
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from custom.errors import BundleError
from custom.learning.device import choose_device, place, share_cores
from custom.learning.evaluate import evaluate, evaluation_batch
from custom.learning.schedule import learning_rate
from custom.learning.seed import Seed, derive
from custom.learning.train import Aborted, LocalBudget, train
from custom.learning.weights import get_weights, load_weights, save_atomically, set_weights, weight_difference
from custom.models.keyed_dropout import KeyedDropout
from tests.poisoned import Touch
from tests.support import TinyData, arrays

CPU = torch.device("cpu")


def linear(weight: list[list[float]]) -> nn.Linear:
    model = nn.Linear(len(weight[0]), len(weight), bias=False)
    model.weight.data = torch.tensor(weight)
    return model


def test_one_step_of_sgd_by_hand() -> None:
    """Logits (0, 0): the softmax is (1/2, 1/2), the gradient of the loss at row c is (p_c - [c == label]) x."""
    model = linear([[0.0], [0.0]])
    batch = (torch.tensor([[2.0]]), torch.tensor([1]))
    loss = train(model, iter([batch]), torch.optim.SGD(model.parameters(), lr=0.1))
    assert loss == pytest.approx(math.log(2))
    assert model.weight.flatten().tolist() == pytest.approx([-0.1 * 0.5 * 2, 0.1 * 0.5 * 2])


def test_evaluate_by_hand() -> None:
    """Logits x * (0, 1): class 1 is predicted for positive x."""
    model = linear([[0.0], [1.0]])
    batches = [(torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 1])), (torch.tensor([[3.0]]), torch.tensor([0]))]
    metrics = evaluate(model, batches, "val_")
    losses = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(1)), math.log(1 + math.exp(3))]
    assert metrics["val_accuracy"] == pytest.approx(1 / 3)
    assert metrics["val_loss"] == pytest.approx(sum(losses) / 3)


@pytest.mark.parametrize(("budget", "batches"), [((1, None, 5), 3), ((3, None, 5), 9), ((1, 2, 5), 2), ((1, 7, 5), 7)])
def test_local_budget_counts_epochs_or_steps(budget: tuple[int, int | None, int], batches: int) -> None:
    data = TinyData(samples=12).site("site-1", ("site-1",), 0)
    assert len(list(LocalBudget(*budget).batches(data, CPU, torch.Generator()))) == batches


@pytest.mark.parametrize("args", [{"local_epochs": 0}, {"local_steps": -1}, {"batch_size": 2.5}, {"batch_size": True}])
def test_local_budget_refuses_nonsense(args: dict[str, int]) -> None:
    with pytest.raises(BundleError, match=next(iter(args))):
        LocalBudget(**args).check()


def test_dropout_with_keys_draws_another_mask_at_every_step_and_the_same_with_the_same_seed() -> None:
    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.linear = KeyedDropout(0.5), nn.Linear(32, 2)
            self.masks: list[list[bool]] = []

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            dropped = self.dropout(inputs)
            self.masks.append((dropped[0] != 0).tolist())
            return self.linear(dropped)

    def masks(seed: int) -> list[list[bool]]:
        torch.manual_seed(seed)
        model = Seen()
        batches = [(torch.ones(1, 32), torch.zeros(1, dtype=torch.int64))] * 4
        train(model, iter(batches), torch.optim.SGD(model.parameters(), 0.1), accumulate_batches=2)
        return model.masks

    first = masks(0)
    assert len({tuple(mask) for mask in first}) == 4
    assert masks(0) == first
    assert masks(1) != first


@pytest.mark.parametrize(
    ("shape", "batch"), [([3, 32, 32], 512), ([1, 128, 128], 128), ([1, 224, 224], 41), ([1, 2048, 2048], 1)]
)
def test_large_images_are_scored_a_few_at_a_time(shape: list[int], batch: int) -> None:
    class Images(TinyData):
        def describe(self) -> dict[str, Any]:
            return super().describe() | {"input_shape": shape}

    assert evaluation_batch(Images()) == batch


def test_training_stops_when_told() -> None:
    model = linear([[0.0], [0.0]])
    with pytest.raises(Aborted):
        train(
            model,
            iter([(torch.ones(1, 1), torch.zeros(1).long())]),
            torch.optim.SGD(model.parameters(), lr=1),
            should_stop=lambda: True,
        )
    assert model.weight.abs().sum() == 0


def test_learning_rates_by_hand() -> None:
    assert [learning_rate(1.0, "cosine", r, 4) for r in range(4)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )
    assert [learning_rate(1.0, "step", r, 4) for r in range(4)] == pytest.approx([1, 1, 0.1, 0.01])
    assert learning_rate(0.3, "constant", 9, 10) == 0.3
    with pytest.raises(BundleError, match="constant, cosine, step"):
        learning_rate(1.0, "linear", 0, 1)


def test_seed_makes_models_equal_and_parts_make_seeds_differ() -> None:
    Seed(3)
    first = nn.Linear(4, 4).weight
    Seed(3)
    assert torch.equal(first, nn.Linear(4, 4).weight)
    seeds = {derive(a, b, c) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seeds) == 27
    assert derive(1, 2, 3) == derive(1, 2, 3)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70, True, 1.0, "1", None])
def test_a_seed_out_of_range_is_named_and_not_by_its_constructor(seed: Any) -> None:
    """One that raises would end FLARE's process."""
    with pytest.raises(BundleError, match=r"seed: expected an integer from 0 to below 2\*\*63"):
        Seed(seed).check()
    Seed(2**63 - 1).check()


def test_unknown_device_is_named() -> None:
    with pytest.raises(BundleError, match="FLARE_DEVICE=cpu"):
        choose_device("cuda:99")


def test_site_chooses_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLARE_DEVICE", "meta")
    assert choose_device("cpu").type == "meta"


def test_weights_travel_and_integers_stay() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = get_weights(model)
    model(torch.randn(4, 2))
    after = get_weights(model)
    difference = weight_difference(after, before)
    assert after["1.num_batches_tracked"] == 1
    assert "1.num_batches_tracked" not in difference
    assert set(difference) == set(before) - {"1.num_batches_tracked"}
    assert np.array_equal(before["1.running_mean"] + difference["1.running_mean"], after["1.running_mean"])
    set_weights(model, before)
    assert all(np.array_equal(value, before[name]) for name, value in get_weights(model).items())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (arrays(weight=[[1, 2]]), r"weight: expected \(1, 1\), got \(1, 2\)"),
        (arrays(bias=[1]), "bias: expected no such tensor"),
        ({}, r"weight: expected \(1, 1\), got none"),
    ],
)
def test_foreign_weights_are_refused(weights: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        set_weights(nn.Linear(1, 1, bias=False), weights)


def test_loading_accepts_both_layouts(tmp_path: Path) -> None:
    for content in ({"w": torch.ones(2)}, {"model": {"w": torch.ones(2)}, "round": 3}):
        save_atomically(content, tmp_path / "m.pt")
        assert load_weights(tmp_path / "m.pt")["w"].tolist() == [1, 1]


def test_bad_files_are_refused(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"model": Touch(marker)}, tmp_path / "poisoned.pt")
    torch.save({"w": torch.ones(1000)}, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:500])
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    for name, message in [
        ("poisoned.pt", "cannot be loaded safely"),
        ("cut.pt", "cannot be loaded safely: it is cut short"),
        ("empty.pt", "holds no state_dict"),
        ("absent.pt", "no such file"),
    ]:
        with pytest.raises(BundleError, match=message):
            load_weights(tmp_path / name)
    assert not marker.exists()


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    """A real write error in a process that may write 10 kB a file."""
    path = tmp_path / "model.pt"
    save_atomically({"w": torch.ones(2)}, path)
    script = (
        "import sys, torch; from pathlib import Path; from custom.learning.weights import save_atomically\n"
        "save_atomically({'w': torch.ones(100_000)}, Path(sys.argv[1]))"
    )

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    run = subprocess.run(
        [sys.executable, "-B", "-c", script, str(path)], preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert load_weights(path)["w"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_placing_changes_the_layout_and_nothing_else() -> None:
    """A three-dimensional convolution, as of CT volumes, is left alone; Module.to(memory_format) would refuse it."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2), nn.Conv3d(1, 1, 1))
    before = get_weights(model)
    place(model, CPU)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    after = get_weights(model)
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    assert all(value.flags["C_CONTIGUOUS"] for value in after.values())
    set_weights(model, before)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("omp", "sites", "expected"), [(None, 10**6, 1), ("5", 10**6, None)])
def test_sites_on_one_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, omp: str | None, sites: int, expected: int | None
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    try:
        share_cores(sites)
        assert torch.get_num_threads() == (expected or 2)
    finally:
        torch.set_num_threads(before)
