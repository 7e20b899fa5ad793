# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Test accuracy of the job mnist as it is, with two sites and five rounds.

    FLARE_DATA_ROOT=... python -m benchmarks.mnist_accuracy [--seeds 3] [--json FILE]

Of the best global model over all 10,000 test images, of which each site holds a half.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.simulate import best_model, export, simulate
from bundle.report.reading import read_report

SITES, TARGET = 2, 0.985


def run(seed: int, folder: Path) -> dict[str, float]:
    """One job."""
    job = export("mnist", folder / f"job-{seed}", [f"seed={seed}", "on_missing=error"])
    seconds = simulate(job, folder / f"run-{seed}", SITES)
    report = read_report(folder / f"run-{seed}")
    assert report.status == "completed", report.errors
    scored = best_model(report)
    scores = [metrics["test_accuracy"] for metrics in report.cross_site[scored].values()]
    assert len(scores) == SITES
    return {"test_accuracy": statistics.mean(scores), "rounds": len(report.rounds), "seconds": seconds}


def main() -> None:
    """A line a seed, then the mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if "FLARE_DATA_ROOT" not in os.environ:
        sys.exit("set FLARE_DATA_ROOT to the folder that holds MNIST")
    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            runs.append(run(seed, Path(folder)))
            print(f"seed {seed}: {runs[-1]}", flush=True)
    mean = statistics.mean(result["test_accuracy"] for result in runs)
    print(f"mean {100 * mean:.2f} %, target at least {100 * TARGET:g} %")
    if args.json:
        result: dict[str, Any] = {"machine": machine.describe(), "sites": SITES, "target": TARGET, "runs": runs}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
