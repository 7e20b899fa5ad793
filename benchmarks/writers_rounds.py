# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a round of perfedavg costs under FLARE: time by writers per round, FLARE's part of it, memory by hosted writers.

    FLARE_DATA_ROOT=... python -m benchmarks.writers_rounds [--json FILE]     (about 10 minutes)

Real jobs in the simulator. The first round of a job, in which processes warm up, does not count. Without
`--dataset digits`, FLARE_DATA_ROOT must hold the data. Memory is that of the one site that hosts all writers; peaks are
the kernel's own (VmHWM), and count those pages of the mapped images that were read. Its synthetic writers are put where
the converted files of FEMNIST are kept, so the conversion, which comes once in the life of a data set, is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.client_memory import peaks_of
from benchmarks.peaks import peak_mb
from benchmarks.simulate import export, server_json, simulate
from custom.data.leaf import FOLDER, SPLITS, find_shards
from custom.data.writer_cache import open_converted, save
from custom.progress import FILE_NAME

TARGETS = {"r_squared": 0.99, "flare_share": 0.10, "peak_mb": 2000.0, "growth": 1.1}
SAMPLES = 100  # of a synthetic writer
EMPTY = "import torch, nvflare; print(open('/proc/self/status').read())"


def make_job(out: Path, settings: list[str], *, scores: bool = False) -> Path:
    """An exported perfedavg of FedAvg rounds alone; `scores` leaves the scoring of held-out writers at its end."""
    settings = ["on_missing=error", "meta_train.num_rounds=0", "eval_every=0", "personalization_epochs=1", *settings]
    job = export("perfedavg", out, settings)
    path = job / "app" / "config" / "config_fed_server.json"
    config = json.loads(path.read_text())
    config["workflows"] = [w for w in config["workflows"] if scores or w["id"] != "personalize"]
    path.write_text(json.dumps(config))
    return job


def read_rounds(workspace: Path) -> list[dict[str, float]]:
    """Of each round but the first: seconds, the slowest site's seconds of work, and the busiest site's samples."""
    events = map(json.loads, (workspace / "server" / "simulate_job" / FILE_NAME).read_text().splitlines())
    tasks = server_json(workspace, "job_stats_run_summary.json")["timing"]["tasks"]
    work: dict[int, float] = {}
    for task in tasks:
        if task["task_name"] == "train":
            work[task["round"]] = max(work.get(task["round"], 0.0), task["client_computation_time"])
    return [
        {
            "seconds": event["seconds"],
            "work_s": work[event["round"] - 1],
            "samples": max(site["samples"] for site in event["sites"].values()),
        }
        for event in events
        if event["event"] == "round" and event["round"] > 1
    ]


def run_rounds(writers: int, epochs: int, name: str, args: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """One job."""
    settings = [f"dataset={args.dataset}", f"writers_per_round={writers}", f"local_epochs={epochs}"]
    job = make_job(folder / f"job-{name}", [*settings, f"fed_avg.num_rounds={args.rounds}"])
    simulate(job, folder / f"run-{name}", sites=args.sites)
    return read_rounds(folder / f"run-{name}")


def fit_line(x: list[float], y: list[float]) -> dict[str, float]:
    """Least squares; `largest_deviation` is a share of what the line says."""
    slope, constant = np.polyfit(x, y, 1)
    line, seconds = constant + slope * np.array(x), np.array(y)
    residual, total = ((seconds - line) ** 2).sum(), ((seconds - seconds.mean()) ** 2).sum()
    return {
        "constant_s": float(constant),
        "slope_s": float(slope),
        "r_squared": float(1 - residual / total),
        "largest_deviation": float((np.abs(seconds - line) / line).max()),
    }


def by_writers(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of a round of one local epoch by writers per round; runs alternate."""
    rounds: dict[int, list[dict[str, float]]] = {count: [] for count in args.writers_per_round}
    for run in range(args.runs):
        for count in sorted(rounds, reverse=bool(run % 2)):
            rounds[count] += run_rounds(count, 1, f"{count}-{run}", args, folder)
            median = statistics.median(entry["seconds"] for entry in rounds[count])
            print(f"{count:3} writers a round: {median:.2f} s", flush=True)
    medians = [statistics.median(entry["seconds"] for entry in entries) for entries in rounds.values()]
    every = [entry for entries in rounds.values() for entry in entries]
    line = fit_line([float(count) for count in rounds], medians)
    print(
        f"line {line['constant_s']:.2f} s + {line['slope_s']:.3f} s a writer, R^2 {line['r_squared']:.4f} (target at "
        f"least {TARGETS['r_squared']:g}), largest deviation {line['largest_deviation']:.1%}"
    )
    return {
        "rounds": {str(count): entries for count, entries in rounds.items()},
        "line": line,
        "line_by_samples": fit_line([e["samples"] for e in every], [e["seconds"] for e in every]),
    }


def flare_share(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The part of a round in which no site's executor works, by the wall time of the round."""
    rounds = [
        e for run in range(args.runs) for e in run_rounds(args.writers, args.epochs, f"share-{run}", args, folder)
    ]
    shares = [1 - entry["work_s"] / entry["seconds"] for entry in rounds]
    result = {
        "writers": args.writers,
        "epochs": args.epochs,
        "seconds": statistics.median(entry["seconds"] for entry in rounds),
        "share": statistics.median(shares),
        "lowest_share": min(shares),
        "highest_share": max(shares),
    }
    print(
        f"FLARE's part of a round of {result['seconds']:.2f} s: {result['share']:.1%} ({min(shares):.1%} to "
        f"{max(shares):.1%}), target at most {TARGETS['flare_share']:.0%}"
    )
    return result


def synthesise(root: Path, cache: Path, count: int) -> None:
    """Files like FEMNIST's, which nobody reads, and in the cache what would come of them: random images."""
    for split in SPLITS:
        (root / FOLDER / "data" / split).mkdir(parents=True)
        (root / FOLDER / "data" / split / "all.json").write_text("{}")
    generator = np.random.default_rng(0)

    def convert(folder: Path) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count * SAMPLES, 28, 28, 1)}
        with (folder / "images.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(count):
                file.write(generator.bytes(SAMPLES * 28 * 28))
        labels = generator.integers(0, 10, count * SAMPLES)
        save(folder, labels, np.arange(count + 1) * SAMPLES, num_classes=10, skipped=0)

    paths = [path for split in SPLITS for path in find_shards(root / FOLDER / "data" / split)[0]]
    open_converted(cache, FOLDER, paths, convert)


def site_peak(count: int, scores: bool, name: str, folder: Path) -> float:
    """MB at the peak of the one site's process, which hosts `count` writers; points FLARE_DATA_ROOT at them."""
    root, cache = folder / f"data-{count}", folder / f"cache-{count}"
    if not root.exists():
        synthesise(root, cache, count)
    os.environ["FLARE_DATA_ROOT"] = str(root)
    settings = ["dataset=femnist", f"cache_dir={cache}", "writers_per_round=20", "local_epochs=1"]
    job = make_job(folder / f"job-{name}", [*settings, "fed_avg.num_rounds=3"], scores=scores)
    return max(peaks_of(job, folder / f"run-{name}", sites=1).values())


def memory(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Few and many hosted writers in training, then many with all that are held out scored."""
    status = subprocess.run([sys.executable, "-c", EMPTY], capture_output=True, text=True, check=True).stdout
    few, many = sorted(args.hosted)
    rows = []
    for count, scores in ((few, False), (many, False), (many, True)):
        peak = site_peak(count, scores, f"memory-{count}-{scores}", folder)
        rows.append({"writers": count, "scores": scores, "peak_mb": peak, "above_mb": peak - peak_mb(status)})
        what = "trained and scored" if scores else "trained"
        print(f"{count} writers, {what}: peak {peak:.0f} MB, {rows[-1]['above_mb']:.0f} MB above an empty process")
    growth = rows[1]["peak_mb"] / rows[0]["peak_mb"]
    print(f"target: under {TARGETS['peak_mb']:.0f} MB")
    print(f"{many} over {few} writers, trained: {growth:.2f}x (target at most {TARGETS['growth']}x)")
    return {"empty_mb": peak_mb(status), "samples_per_writer": SAMPLES, "rows": rows, "growth": growth}


PARTS = {"by_writers": by_writers, "flare_share": flare_share, "memory": memory}


def main() -> None:
    """Prints all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="all by default")
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "femnist", "digits"))
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8, help="of a job (default 8)")
    parser.add_argument("--runs", type=int, default=1, help="jobs of each kind (default 1)")
    parser.add_argument("--writers-per-round", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--writers", type=int, default=20, help="a round, for FLARE's part")
    parser.add_argument("--epochs", type=int, default=5, help="local ones, for FLARE's part")
    parser.add_argument("--hosted", type=int, nargs=2, default=[1000, 10000], help="writers at a site, for the memory")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.dataset != "digits" and "FLARE_DATA_ROOT" not in os.environ:
        sys.exit("set FLARE_DATA_ROOT to the folder that holds the data")
    names = ("dataset", "sites", "rounds", "runs")
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "arguments": {name: getattr(args, name) for name in names},
        "targets": TARGETS,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in PARTS:  # memory last: it points FLARE_DATA_ROOT elsewhere
            if name in args.parts:
                result[name] = PARTS[name](args, Path(folder))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
