# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""CIFAR-10 with two IID sites under FLARE against central training on the union of their data.

    FLARE_DATA_ROOT=... python -m benchmarks.federated_vs_central [--seeds 3] [--rounds 30] [--json FILE]

Same model, same training code, the same 50,000 images (each side sets a tenth of them aside for validation, the sites
within their shares), equal epochs, both selected on validation; all 10,000 test images are scored once, with the
selected model. FLARE runs as a user runs it: real jobs in the simulator.
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

from benchmarks import machine
from benchmarks.central import train_centrally
from benchmarks.simulate import BEST, export, server_json, simulate
from custom.data.image_data import ImageData
from custom.learning.device import choose_device, place
from custom.learning.evaluate import evaluate_split
from custom.learning.seed import Seed
from custom.models.lenet import LeNet

SETTINGS = {"batch_size": 64, "local_lr": 0.01, "lr_schedule": "cosine", "momentum": 0.9, "weight_decay": 0.0005}
TARGET_POINTS = 1.5


def federated(seed: int, rounds: int, folder: Path) -> dict[str, float]:
    """Test accuracy of the best global model, over all 10,000 images (5,000 a site)."""
    settings = [f"{key}={value}" for key, value in SETTINGS.items()]
    settings += [f"seed={seed}", f"num_rounds={rounds}", "on_missing=error"]
    job = export("hello-pt", folder / f"job-{seed}", settings)
    seconds = simulate(job, folder / f"federated-{seed}", sites=2)
    results = server_json(folder / f"federated-{seed}", "cross_site_val/cross_val_results.json")
    scores = [site[BEST]["test_accuracy"] for site in results.values() if BEST in site]
    assert len(scores) == 2, f"expected the scores of two sites, got {results}"
    return {"test_accuracy": statistics.mean(scores), "seconds": seconds}


def central(seed: int, rounds: int) -> dict[str, float]:
    """Test accuracy of the epoch that is best on validation."""
    started = time.monotonic()
    model_seed = Seed(seed).seed
    device = choose_device()
    model = place(LeNet(), device)
    data = ImageData(on_missing="error").site("central", ["central"], model_seed)
    train_centrally(model, data, device, SETTINGS, rounds, model_seed, "accuracy")
    test = evaluate_split(model, data, "test", device)
    return {"test_accuracy": test["test_accuracy"], "seconds": time.monotonic() - started}


def main() -> None:
    """Prints each run, then means and spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if "FLARE_DATA_ROOT" not in os.environ:
        sys.exit("set FLARE_DATA_ROOT to the folder that holds cifar-10-batches-py")
    runs: dict[str, list[dict[str, float]]] = {"federated": [], "central": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            runs["federated"].append(federated(seed, args.rounds, Path(folder)))
            runs["central"].append(central(seed, args.rounds))
            print(f"seed {seed}", {k: v[-1] for k, v in runs.items()}, flush=True)
    accuracy = {name: [100 * run["test_accuracy"] for run in results] for name, results in runs.items()}
    gap = statistics.mean(accuracy["central"]) - statistics.mean(accuracy["federated"])
    for name, values in accuracy.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name}: {statistics.mean(values):.2f} +- {spread:.2f} % over {len(values)} seeds")
    print(f"federated is {gap:.2f} points below central (target: at most {TARGET_POINTS})")
    if args.json:
        result: dict[str, Any] = {"machine": machine.describe(), "rounds": args.rounds, "settings": SETTINGS}
        result |= {"runs": runs, "gap_points": gap, "target_points": TARGET_POINTS}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
