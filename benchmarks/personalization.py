# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What fine-tuning gains and costs: local-only, global and personal models on CIFAR-10 under FLARE.

    FLARE_DATA_ROOT=... python -m benchmarks.personalization [--sites 5] [--rounds 15] [--seeds 3] [--json FILE]

Real jobs in the simulator, fl-plus-ft with sharing on, so that CrossSiteModelEval also scores each personal model on
the other sites' test data. Means are weighted by test samples, then taken over seeds.
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
from benchmarks.simulate import export, server_json, simulate

SETTINGS = ["on_missing=error", "share_personal_models=true", "submit_model_task_name=submit_model"]
KINDS = ("local_only", "global", "personal", "personal_elsewhere")
TARGETS = {  # points of test accuracy: (personal above global, personal above local-only)
    0.1: (20.0, 1.5),
    0.5: (8.0, 2.5),
    1.0: (None, 2.5),
}


def elsewhere(workspace: Path, sites: dict[str, Any]) -> float:
    """Mean test accuracy of the personal models on the other sites' data, weighted by test samples."""
    matrix = server_json(workspace, "cross_site_val/cross_val_results.json")
    pairs = [(matrix[at][of]["test_accuracy"], sites[at]["test_samples"]) for at in sites for of in sites if at != of]
    return sum(score * weight for score, weight in pairs) / sum(weight for _, weight in pairs)


def fine_tuning_cost(workspace: Path) -> float:
    """Wall time of an epoch of fine-tuning over that of an epoch in a training round, median over sites.

    Both are the executors' own times (validation before, training, validation after), as JobStatsReporter has them; the
    fine-tuning also scores two models on test data and writes the personal model.
    """
    tasks = server_json(workspace, "job_stats_run_summary.json")["timing"]["tasks"]
    tuned = server_json(workspace, "fine_tune.json")["sites"]
    ratios = []
    for site, row in tuned.items():
        rounds = [t["client_computation_time"] for t in tasks if t["client"] == site and t["task_name"] == "train"]
        seconds = next(
            t["client_computation_time"] for t in tasks if t["client"] == site and t["task_name"] == "fine_tune"
        )
        ratios.append(seconds / row["epochs"] / statistics.median(rounds))
    return statistics.median(ratios)


def measure(alpha: float, seed: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One job."""
    settings = [*SETTINGS, *args.set, f"alpha={alpha}", f"seed={seed}", f"num_rounds={args.rounds}"]
    job = export(args.job, folder / f"job-{alpha}-{seed}", settings)
    started = time.monotonic()
    workspace = folder / f"run-{alpha}-{seed}"
    simulate(job, workspace, sites=args.sites, threads=args.threads or args.sites)
    result = server_json(workspace, "fine_tune.json")
    summary, sites = result["summary"], result["sites"]
    row: dict[str, Any] = {kind: 100 * summary[kind]["mean"] for kind in KINDS if kind in summary}
    row["personal_elsewhere"] = 100 * elsewhere(workspace, sites)
    row |= {f"worst_{kind}": 100 * summary[kind]["worst"] for kind in KINDS if kind in summary}
    for harm in ("harmed_on_test", "harmed_on_validation"):
        row[harm] = round(summary[harm] * len(sites))
    return row | {"sites": len(sites), "failed": result["failed"], "seconds": time.monotonic() - started}


def cost(args: argparse.Namespace, folder: Path) -> float:
    """Fine-tuning cost in a job without local-only training, with as many epochs as patience allows."""
    settings = ["on_missing=error", "local_only=false", "num_rounds=3", "patience=5", "fine_tune_epochs=5", *args.set]
    job = export(args.job, folder / "job-cost", settings)
    simulate(job, folder / "cost", sites=2)
    return fine_tuning_cost(folder / "cost")


def main() -> None:
    """Prints a line a job, then a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", default="fl-plus-ft")
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="clients that run at a time; all of them by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alphas", type=float, nargs="+", default=sorted(TARGETS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of the job")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if "FLARE_DATA_ROOT" not in os.environ:
        sys.exit("set FLARE_DATA_ROOT to the folder that holds cifar-10-batches-py")
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ratio = cost(args, folder)
        print(f"an epoch of fine-tuning costs {ratio:.2f} of an epoch in a round (target: at most 1.2)", flush=True)
        for alpha in args.alphas:
            for seed in range(args.seeds):
                row = measure(alpha, seed, args, folder)
                rows.setdefault(str(alpha), []).append(row)
                print(
                    f"alpha {alpha} seed {seed}", {k: round(v, 2) for k, v in row.items() if k != "failed"}, flush=True
                )
    if args.json:
        result = {
            "machine": machine.describe(),
            "arguments": {"sites": args.sites, "rounds": args.rounds, "seeds": args.seeds, "set": args.set},
            "targets": {str(alpha): pair for alpha, pair in TARGETS.items()},
            "epoch_cost": {"ratio": ratio, "target": 1.2},
            "runs": rows,
        }
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
