# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The price of robust aggregation: time, memory and accuracy of each rule against the weighted mean.

    python -m benchmarks.robust_aggregation [--repeats 5] [--seeds 3] [--small] [--no-accuracy] [--json FILE]

Time and memory: the updates of 8 sites, of LeNet and of a BERT with 22 M parameters, combined by each rule in turn, the
mean first; the ratio is that of a turn. Memory is the peak of what NumPy allocates beside the updates, the result
included, in dense models. The log line of RobustAggregator, and clipping of all updates, have rows of their own.

Accuracy: LeNet on the embedded digits at 5 sites, FedAvg without FLARE, alike (IID) and unlike (Dirichlet, alpha 0.3);
all behave, or one sends five times its update backwards. Test accuracy of the last model on all 1,000 test images. A
quarter of an hour in all.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.compression import Arrays, bert, peak_bytes, random_model, seconds
from custom.aggregators.weighted import weighted_mean
from custom.checks.update import l2_norm
from custom.data.image_data import ImageData
from custom.learning.coordinate_wise import Median, TrimmedMean
from custom.learning.evaluate import evaluate_split
from custom.learning.geometric_median import GeometricMedian
from custom.learning.krum import Krum
from custom.learning.robust import Rule, clip, distances
from custom.learning.seed import Seed, derive
from custom.learning.train import LocalBudget, train
from custom.learning.weights import get_weights, set_weights, weight_difference
from custom.models.lenet import LeNet

SITES = 8
RULES: dict[str, Rule] = {
    "median": Median(),
    "trimmed mean": TrimmedMean(1),
    "Krum": Krum(1),
    "Multi-Krum, all but one": Krum(1, None),
    "geometric median": GeometricMedian(),
}
SETTINGS = {"sites": 5, "rounds": 15, "batch_size": 64, "local_lr": 0.02, "momentum": 0.9, "factor": -5.0}
PARTITIONS: dict[str, dict[str, Any]] = {
    "alike": {"partition": "iid"},
    "unlike": {"partition": "dirichlet", "alpha": 0.3},
}
CPU = torch.device("cpu")


def mean(updates: list[Arrays], weights: list[float]) -> Arrays:
    """What WeightedAggregator does."""
    return weighted_mean(list(zip(weights, updates, strict=True)))


def clipped_mean(updates: list[Arrays], weights: list[float]) -> Arrays:
    """Norm clipping of every update in turn, as RobustAggregator does when one arrives, and the mean."""
    for update in updates:
        norm = l2_norm(update)
        clip(update, norm, norm / 2)
    return mean(updates, weights)


def log_line(updates: list[Arrays], weights: list[float]) -> Any:
    """What RobustAggregator computes to name the sites that are far away."""
    return distances(updates, updates[0])


def cost(shapes: dict[str, tuple[int, ...]], repeats: int) -> dict[str, Any]:
    """Time and memory of everything on the same updates, in turns."""
    rng = np.random.default_rng(0)
    updates, weights = [random_model(shapes, 1e-3, rng) for _ in range(SITES)], [float(100 + k) for k in range(SITES)]
    n = sum(value.size for value in updates[0].values())
    works: dict[str, Callable[[list[Arrays], list[float]], Any]] = {"weighted mean": mean, **RULES}
    works |= {"clipping, then the mean": clipped_mean, "the log line alone": log_line}
    turns: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):  # the first one is for warming up
        for name, work in works.items():
            taken = seconds(lambda work=work: work(updates, weights))  # type: ignore[misc]
            if turn:
                turns[name].append(taken)
    rows = []
    for name, work in works.items():
        ratios = [own / base for own, base in zip(turns[name], turns["weighted mean"], strict=True)]
        peak = peak_bytes(lambda work=work: work(updates, weights))  # type: ignore[misc]
        rows.append(
            {
                "rule": name,
                "seconds": statistics.median(turns[name]),
                "ratio": statistics.median(ratios),
                "lowest_ratio": min(ratios),
                "highest_ratio": max(ratios),
                "peak_dense_models": peak / (4 * n),
            }
        )
    return {"parameters": n, "sites": SITES, "repeats": repeats, "rows": rows}


def federation(partition: dict[str, Any], seed: int) -> tuple[list[Any], list[float]]:
    """The sites' data and numbers of training samples."""
    roster = tuple(f"site-{k + 1}" for k in range(int(SETTINGS["sites"])))
    data = ImageData(dataset="digits", **partition)
    sites = [data.site(name, roster, seed) for name in roster]
    return sites, [float(site.size("train")) for site in sites]


def accuracy(combine: Callable[..., Any], partition: dict[str, Any], hostile: bool, seed: int) -> float:
    """Test accuracy after all rounds; site-3 is the hostile one."""
    model_seed = Seed(seed).seed
    torch.manual_seed(model_seed)
    model = LeNet()
    sites, samples = federation(partition, model_seed)
    weights = get_weights(model)
    for round_index in range(int(SETTINGS["rounds"])):
        updates = []
        for k, site in enumerate(sites):
            set_weights(model, weights)
            optimizer = torch.optim.SGD(model.parameters(), SETTINGS["local_lr"], SETTINGS["momentum"])
            generator = torch.Generator().manual_seed(derive(model_seed, k, round_index))
            batches = LocalBudget(batch_size=int(SETTINGS["batch_size"])).batches(site, CPU, generator)
            train(model, batches, optimizer)
            update = weight_difference(get_weights(model), weights)
            if hostile and k == 2:
                update = {name: value * np.float32(SETTINGS["factor"]) for name, value in update.items()}
            updates.append(update)
        step = combine(updates, samples)
        weights = {name: value + step[name] for name, value in weights.items()}
    set_weights(model, weights)
    everyone = ImageData(dataset="digits").site("all", ("all",), model_seed)
    return evaluate_split(model, everyone, "test", CPU)["test_accuracy"]


def accuracies(seeds: int) -> list[dict[str, Any]]:
    """Every rule, with and without a hostile site, at sites that are alike and unlike."""
    rows = []
    for partition, arguments in PARTITIONS.items():
        for hostile in (False, True):
            for name, combine in {"weighted mean": mean, **RULES}.items():
                scores = [accuracy(combine, arguments, hostile, seed) for seed in range(seeds)]
                rows.append({"rule": name, "partition": partition, "hostile": hostile, "test_accuracy": scores})
                shown = "  ".join(f"{100 * score:.1f}" for score in scores)
                print(f"{partition}, {'one hostile' if hostile else 'all behave'}, {name}: {shown}", flush=True)
    return rows


def show(part: dict[str, Any]) -> None:
    """A table."""
    print(f"{part['parameters']:,} parameters, {part['sites']} sites")
    for row in part["rows"]:
        print(
            f"  {row['rule']:24s} {row['seconds']:8.4f} s  {row['ratio']:5.2f}x ({row['lowest_ratio']:.2f}-"
            f"{row['highest_ratio']:.2f})  peak {row['peak_dense_models']:.2f} dense models",
            flush=True,
        )


def main() -> None:
    """Prints ratios, peaks and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5, help="turns of all rules (default 5)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="leave out the model of 22 M parameters")
    parser.add_argument("--no-accuracy", action="store_true", help="time and memory alone")
    args = parser.parse_args()
    lenet = {name: tuple(value.shape) for name, value in LeNet().state_dict().items()}
    result: dict[str, Any] = {
        "machine": machine.describe() | {"threads": torch.get_num_threads(), "numpy": np.__version__},
        "settings": SETTINGS,
        "costs": [],
    }
    for shapes in (lenet,) if args.small else (lenet, bert(384, 6)):
        result["costs"].append(cost(shapes, args.repeats))
        show(result["costs"][-1])
    if not args.no_accuracy:
        result["accuracies"] = accuracies(args.seeds)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
