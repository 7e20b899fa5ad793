# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The price of robust aggregation: time and memory of each rule against the weighted mean.

    python -m benchmarks.robust_aggregation [--repeats 5] [--small] [--json FILE]

The updates of 8 sites, of LeNet and of a BERT with 22 M parameters, combined by each rule in turn, the mean first; the
ratio is that of a turn. Memory is the peak of what NumPy allocates beside the updates, the result included, in dense
models. The comparison of the round, which every aggregator makes, and clipping of all updates have rows of their own.
What the rules are good for is measured by `benchmarks.malicious_site`.
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
from custom.checks.round import standings
from custom.checks.update import l2_norm
from custom.learning.coordinate_wise import Median, TrimmedMean
from custom.learning.geometric_median import GeometricMedian
from custom.learning.krum import Krum
from custom.learning.mean_without_outliers import MeanWithoutOutliers
from custom.learning.robust import Rule, clip, inner_products, side_by_side
from custom.models.lenet import LeNet

SITES = 8
RULES: dict[str, Rule] = {
    "median": Median(),
    "trimmed mean": TrimmedMean(1),
    "Krum": Krum(1),
    "Multi-Krum, all but one": Krum(1, None),
    "geometric median": GeometricMedian(),
    "mean without outliers": MeanWithoutOutliers(),
}


def mean(updates: list[Arrays], weights: list[float]) -> Arrays:
    """What WeightedAggregator does."""
    return weighted_mean(list(zip(weights, updates, strict=True)))


def clipped_mean(updates: list[Arrays], weights: list[float]) -> Arrays:
    """Norm clipping of every update in turn, as RobustAggregator does when one arrives, and the mean."""
    for update in updates:
        norm = l2_norm(update)
        clip(update, norm, norm / 2)
    return mean(updates, weights)


def comparison(updates: list[Arrays], weights: list[float]) -> Any:
    """What every aggregator does to see how the updates stand among each other."""
    return standings(inner_products(side_by_side(updates), len(updates)), np.array(weights))


def cost(shapes: dict[str, tuple[int, ...]], repeats: int) -> dict[str, Any]:
    """Time and memory of everything on the same updates, in turns."""
    rng = np.random.default_rng(0)
    updates, weights = [random_model(shapes, 1e-3, rng) for _ in range(SITES)], [float(100 + k) for k in range(SITES)]
    n = sum(value.size for value in updates[0].values())
    works: dict[str, Callable[[list[Arrays], list[float]], Any]] = {"weighted mean": mean, **RULES}
    works |= {"clipping of all, then the mean": clipped_mean, "comparison of the round": comparison}
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
    """Prints ratios and peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5, help="turns of all rules (default 5)")
    parser.add_argument("--small", action="store_true", help="leave out the model of 22 M parameters")
    args = parser.parse_args()
    lenet = {name: tuple(value.shape) for name, value in LeNet().state_dict().items()}
    result: dict[str, Any] = {
        "machine": machine.describe() | {"threads": torch.get_num_threads(), "numpy": np.__version__},
        "costs": [],
    }
    for shapes in (lenet,) if args.small else (lenet, bert(384, 6)):
        result["costs"].append(cost(shapes, args.repeats))
        show(result["costs"][-1])
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
