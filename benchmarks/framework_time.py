# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Framework time of hello-pt (time not inside executors) against the same job with FLARE's default settings.

    python -m benchmarks.framework_time [--runs 3] [--json FILE]

The stock job has FLARE's default intervals, InitializeGlobalWeights, aggregator and no closing validation, and runs by
FLARE's own command; the executors and data are the same in both. Cold is with the start of a fork server, as the first
job of a command, warm is with one that is there, as each further job of a sweep. Runs alternate, so that a noisy
neighbour hits all alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.simulate import export, server_json, simulate
from bundle.forked import fork_server

TARGETS = {  # of which kind of run, in which phase, and at most how much of FLARE's
    "first task to last result": ("cold", "first task to last result", 0.35),
    "whole job, the first of a command": ("cold", "whole job", 0.30),
    "whole job, each further one of a sweep": ("warm", "whole job", 0.20),
}
STOCK = {
    "controllers.initialize_global_weights.InitializeGlobalWeights": "nvflare.app_common.workflows."
    "initialize_global_weights.InitializeGlobalWeights",
    "custom.aggregators.weighted.WeightedAggregator": "nvflare.app_common.aggregators."
    "intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator",
}
INTERVALS = ("task_request_interval", "default_task_fetch_interval", "task_check_period", "min_contributions")


def make_stock(job: Path) -> None:
    """Turns an exported hello-pt into what FLARE alone offers."""
    for side in ("server", "client"):
        path = job / "app" / "config" / f"config_fed_{side}.json"
        settings = json.loads(
            path.read_text(), object_hook=lambda d: {k: v for k, v in d.items() if k not in INTERVALS}
        )
        settings["task_result_filters"] = []
        if side == "server":
            settings["workflows"] = [w for w in settings["workflows"] if w["id"] != "closing_validation"]
            settings["components"] = [c for c in settings["components"] if c["id"] != "progress"]
            for entry in settings["workflows"] + settings["components"]:
                entry["path"] = STOCK.get(entry["path"], entry["path"])
        path.write_text(json.dumps(settings))


def measure(kind: str, job: Path, workspace: Path) -> dict[str, float]:
    """Seconds that neither site's executor worked: wall time less the busier site's computation."""
    started = time.monotonic()
    if kind == "cold":
        with fork_server():
            simulate(job, workspace, sites=2)
        wall = time.monotonic() - started
    else:
        wall = simulate(job, workspace, sites=2, own=kind == "stock")
    tasks = server_json(workspace, "job_stats_run_summary.json")["timing"]["tasks"]
    busy: dict[str, float] = {}
    for task in tasks:
        busy[task["client"]] = busy.get(task["client"], 0.0) + task["client_computation_time"]
    window = max(t["received_at"] for t in tasks) - min(t["assigned_at"] for t in tasks)
    return {"first task to last result": window - max(busy.values()), "whole job": wall - max(busy.values())}


def main() -> None:
    """Prints seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seconds: dict[str, list[dict[str, float]]] = {"cold": [], "stock": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        jobs = {name: export("hello-pt", root / name, ["num_rounds=2", "dataset=digits"]) for name in seconds}
        make_stock(jobs["stock"])
        for run in range(args.runs):
            for name, job in jobs.items():
                with fork_server() if name == "warm" else nullcontext():
                    if name == "warm":
                        simulate(job, root / f"first-{run}", sites=2)
                    seconds[name].append(measure(name, job, root / f"{name}-{run}"))
                print(name, run + 1, {k: round(v, 2) for k, v in seconds[name][-1].items()}, flush=True)
    result: dict[str, Any] = {"machine": machine.describe(), "runs": args.runs, "seconds": seconds, "ratios": {}}
    for title, (kind, phase, target) in TARGETS.items():
        ours, theirs = (statistics.median(run[phase] for run in seconds[name]) for name in (kind, "stock"))
        result["ratios"][title] = {"bundle_s": ours, "stock_s": theirs, "ratio": ours / theirs, "target": target}
        print(f"{title}: {ours:.2f} s against {theirs:.2f} s = {ours / theirs:.2f}x (target at most {target}x)")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
