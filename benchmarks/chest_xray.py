# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Chest X-rays at three sites under FLARE against central training on the union of their images.

    FLARE_DATA_ROOT=... python -m benchmarks.chest_xray [--seeds 3] [--json FILE]

Real JPEGs and PneumoniaMNIST. Same model, same training code, the same training patients (each side sets a tenth of
them aside for validation, the sites within their shares), equal epochs, both selected on validation AUC. Both selected
models are scored here on all test images at once, so that their AUCs are the same thing; what the job itself reports,
the AUC within sites, stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.central import train_centrally
from benchmarks.simulate import best_model, export, simulate
from bundle.report.reading import read_report
from custom.data.image_batches import ImageSiteData
from custom.data.xray_data import XrayData
from custom.learning.class_weights import class_weights_of
from custom.learning.device import choose_device, place
from custom.learning.evaluate import EVALUATION_BATCH, evaluate
from custom.learning.seed import Seed
from custom.learning.weights import load_weights, set_weights
from custom.models.small_cnn import SmallCnn

SITES = 3
ROUNDS = {"chest_xray": 20, "pneumoniamnist": 10}
SETTINGS = {"batch_size": 16, "local_lr": 0.02, "lr_schedule": "cosine", "momentum": 0.9, "weight_decay": 0.0005}
METRICS = ("accuracy", "auc", "sensitivity", "specificity")
TARGET_POINTS = 2.0


def federated(dataset: str, seed: int, rounds: int, folder: Path) -> dict[str, float]:
    """Test metrics of the best global model."""
    settings = [f"{key}={value}" for key, value in SETTINGS.items()]
    settings += [f"seed={seed}", f"num_rounds={rounds}", f"dataset={dataset}", f"cache_dir={folder / 'cache'}"]
    name = f"{dataset}-{seed}"
    job = export("chest-xray", folder / f"job-{name}", settings)
    seconds = simulate(job, folder / name, sites=SITES)
    report = read_report(folder / name)
    assert report.status == "completed", report.errors
    scored = best_model(report)
    assert len(report.cross_site[scored]) == SITES
    model = SmallCnn(num_classes=2)
    set_weights(model, load_weights(Path(report.models["best global model"])))
    own = report.cross_aggregate(scored)
    return score_on_test(model, dataset, seed, folder) | {"auc_within_sites": own["test_auc"], "seconds": seconds}


def central(dataset: str, seed: int, rounds: int, folder: Path) -> dict[str, float]:
    """Test metrics of the epoch that is best on validation."""
    started = time.monotonic()
    Seed(seed)
    device = choose_device()
    model = place(SmallCnn(num_classes=2), device)
    data = images(dataset, seed, folder)
    weights = class_weights_of("balanced", data, device)
    train_centrally(model, data, device, SETTINGS, rounds, seed, "auc", weights)
    seconds = time.monotonic() - started
    return score_on_test(model, dataset, seed, folder) | {"seconds": seconds}


def images(dataset: str, seed: int, folder: Path) -> ImageSiteData:
    """All of them, as one site has them."""
    component = XrayData(dataset=dataset, cache_dir=str(folder / "cache"), augment=True)
    return component.site("central", ["central"], seed)


def score_on_test(model: torch.nn.Module, dataset: str, seed: int, folder: Path) -> dict[str, float]:
    """Of `model`, over all test images at once."""
    device = choose_device()
    batches = images(dataset, seed, folder).batches("test", EVALUATION_BATCH, device)
    scores = evaluate(place(model, device), batches, "")
    return {name: scores[name] for name in METRICS}


def compare(dataset: str, seeds: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Runs both sides with every seed and prints means, spread and gap."""
    runs: dict[str, list[dict[str, float]]] = {"federated": [], "central": []}
    for seed in range(seeds):
        runs["federated"].append(federated(dataset, seed, rounds, folder))
        runs["central"].append(central(dataset, seed, rounds, folder))
        print(f"{dataset} seed {seed}", {k: v[-1] for k, v in runs.items()}, flush=True)
    for name, results in runs.items():
        for metric in METRICS:
            values = [100 * run[metric] for run in results]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"{dataset} {name}: {metric} {statistics.mean(values):.2f} +- {spread:.2f} % over {seeds} seeds")
    means = {name: statistics.mean(run["auc"] for run in results) for name, results in runs.items()}
    gap = 100 * (means["central"] - means["federated"])
    print(f"{dataset}: federated is {gap:.2f} points of AUC below central (target: at most {TARGET_POINTS})")
    return {"rounds": rounds, "runs": runs, "gap_points": gap}


def main() -> None:
    """Both data sets, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--datasets", nargs="+", choices=ROUNDS, default=list(ROUNDS))
    parser.add_argument("--rounds", type=int, help="of both, in place of " + str(ROUNDS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if "FLARE_DATA_ROOT" not in os.environ:
        sys.exit("set FLARE_DATA_ROOT to the folder that holds chest_xray and pneumoniamnist.npz")
    with tempfile.TemporaryDirectory() as folder:
        found = {name: compare(name, args.seeds, args.rounds or ROUNDS[name], Path(folder)) for name in args.datasets}
    if args.json:
        result: dict[str, Any] = {"machine": machine.describe(), "sites": SITES, "settings": SETTINGS}
        result |= {"datasets": found, "target_points": TARGET_POINTS}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
