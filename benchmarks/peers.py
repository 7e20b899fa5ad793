# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The same training in `bundle run`, in FLARE's own simulator, and in Flower's simulation engine: whole and per round.

    python -m benchmarks.peers --flower PYTHON [--sites 10] [--rounds 20] [--runs 3] [--json FILE]

LeNet on the embedded digits, an epoch a round; every site scores what it receives. PYTHON has `flwr[simulation]` and
this one's packages. Flower runs with its own defaults, and tuned: one processor and one thread a site, so that as many
sites run at a time as there are processors. FLARE's own simulator runs the stock job of benchmarks/framework_time.py,
with all sites at a time, by its own command.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.framework_time import make_stock
from benchmarks.simulate import export, keep_training, server_json, simulate, usual_environment
from bundle import ROOT

TUNED = ("--cpus", "1", "--threads", "1")


def run(command: list[str], folder: Path, **env: str) -> tuple[float, str]:
    """Wall seconds of a command, and what it printed."""
    folder.mkdir(exist_ok=True)
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env=usual_environment() | env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[:4]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return time.monotonic() - started, done.stdout


def flower(python: Path, sites: int, rounds: int, folder: Path, *options: str) -> dict[str, float]:
    """One run in Flower's simulation engine."""
    command = [str(python), "-m", "benchmarks.flower_digits", "--sites", str(sites), "--rounds", str(rounds), *options]
    wall, told = run(command, folder, PYTHONPATH=str(ROOT))
    last = json.loads(told.splitlines()[-1])
    return {"wall_s": wall, "round_s": statistics.median(last["rounds_s"]), "val_accuracy": last["val_accuracy"]}


def flare(kind: str, sites: int, rounds: int, folder: Path) -> dict[str, float]:
    """One run in FLARE's simulator: `bundle` by our command, `stock` by its own."""
    job = export("hello-pt", folder / "job", [f"num_rounds={rounds}", "dataset=digits"])
    if kind == "stock":
        make_stock(job)
    keep_training(job)
    where = ["-w", str(folder / "ws"), "-n", str(sites), "-t", str(sites)]
    if kind == "bundle":
        wall, _ = run([sys.executable, "-m", "bundle", "run", str(job), *where], folder / "empty")
    else:
        wall = simulate(job, folder / "ws", sites, own=True)
    summary = server_json(folder / "ws", "job_stats_run_summary.json")
    tasks = [task for task in summary["timing"]["tasks"] if task["task_name"] == "train"]
    ends = sorted(task["received_at"] for task in tasks)[sites - 1 :: sites]  # of each round, its last result
    rounds_s = [after - before for before, after in itertools.pairwise(ends)]
    return {"wall_s": wall, "round_s": statistics.median(rounds_s)}


def main() -> None:
    """Prints a line a run, and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flower", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    size = args.sites, args.rounds
    ways: dict[str, Any] = {
        "bundle run": lambda folder: flare("bundle", *size, folder),
        "FLARE's simulator": lambda folder: flare("stock", *size, folder),
        "Flower, defaults": lambda folder: flower(args.flower, *size, folder),
        "Flower, tuned": lambda folder: flower(args.flower, *size, folder, *TUNED),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(args.runs):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                runs[name].append(way(Path(folder)))
            print(name, {key: round(value, 3) for key, value in runs[name][-1].items()}, flush=True)
    medians = {
        name: {key: statistics.median(one[key] for one in rows) for key in rows[0]} for name, rows in runs.items()
    }
    for name, row in medians.items():
        print(f"{name}: {row['wall_s']:.1f} s, {row['round_s']:.2f} s a round")
    versions = "import flwr, ray; print(flwr.__version__, ray.__version__)"
    versions = subprocess.run([str(args.flower), "-c", versions], capture_output=True, text=True, check=True).stdout
    result = {"machine": machine.describe(), "sites": args.sites, "rounds": args.rounds, "runs": runs}
    result |= {"medians": medians, "flower": versions.split()[-2:]}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
