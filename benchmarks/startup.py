# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What `bundle run` costs beside the training: hello-pt on digits with two sites, as `make demo` runs it.

    python -m benchmarks.startup [--before DIR] [--runs 5] [--json FILE]

DIR is another checkout with its own `.venv`, to compare with: both run in turn. Processor seconds are those of all
processes; `to_prompt_s` is from the job's last event, which follows the last score, to the end of the command.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.simulate import usual_environment
from bundle import ROOT

TARGETS = {
    "wall_s": 0.40,
    "cpu_s": 14.0,
    "to_prompt_s": 1.5,
    "round_s": 1.02,
}  # first and last: of the other checkout's


def processor_seconds() -> float:
    """Of all processes that have ended, and were waited for, below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(checkout: Path, folder: Path, *options: str) -> dict[str, float]:
    """One `bundle run` of that checkout."""
    workspace = folder / "ws"
    command = [str(checkout / ".venv" / "bin" / "python"), "-m", "bundle", "run", "hello-pt", "-w", str(workspace)]
    command += ["--set", "dataset=digits", "--html", str(folder / "report.html"), *options]
    used, started = processor_seconds(), time.time()
    subprocess.run(command, cwd=folder, env=usual_environment(), check=True, capture_output=True)
    ended = time.time()
    lines = (workspace / "server" / "simulate_job" / "progress.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return {
        "round_s": statistics.median(event["seconds"] for event in events if event["event"] == "round"),
        "wall_s": ended - started,
        "cpu_s": processor_seconds() - used,
        "to_prompt_s": ended - events[-1]["time"],
    }


def main() -> None:
    """Prints a line a run, and medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, metavar="DIR")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    checkouts = {"now": ROOT} | ({"before": args.before.resolve()} if args.before else {})
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for number in range(args.runs):
        for name, checkout in checkouts.items():
            with tempfile.TemporaryDirectory() as folder:
                runs[name].append(measure(checkout, Path(folder)))
            print(name, number + 1, {key: round(value, 2) for key, value in runs[name][-1].items()}, flush=True)
    medians = {
        name: {key: statistics.median(one[key] for one in rows) for key in rows[0]} for name, rows in runs.items()
    }
    result: dict[str, Any] = {"machine": machine.describe(), "targets": TARGETS, "runs": runs, "medians": medians}
    if args.before:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=args.before, capture_output=True, text=True
        )
        result["before"] = commit.stdout.strip()
        print(f"wall: {medians['now']['wall_s'] / medians['before']['wall_s']:.2f}x")
    print(medians)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
