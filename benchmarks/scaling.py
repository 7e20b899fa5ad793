# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a round costs as sites and parameters grow: hello-pt in FLARE's simulator, one batch of training a round.

    python -m benchmarks.scaling [--rounds 4] [--sites 2 8 24 100] [--json FILE]

Wall time is that of the median round after the first; memory is the peak of the process that is server and simulator,
of the largest process of a site, and of all together, where what several share counts once; bytes are arrays as sent,
by all sites together. With fewer threads than sites, every task of a site is a new process: the simulator's way, and
no deployment's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.peaks import Peaks
from benchmarks.simulate import export, keep_training, simulate
from bundle.report.reading import read_report

WIDE = Path(__file__).with_name("wide.py")
# Layers of Wide, or None for the job's own LeNet; sites; threads. The quick ones first.
CASES: list[tuple[int | None, int, int]] = [
    (None, 2, 2),
    (None, 8, 8),
    (None, 24, 24),
    (18, 2, 2),
    (18, 8, 8),
    (100, 2, 2),
    (None, 8, 2),
    (18, 8, 2),
    (None, 24, 2),
    (None, 100, 2),
    (None, 100, 100),
]


def make_job(layers: int | None, sites: int, rounds: int, folder: Path) -> Path:
    """Hello-pt with one batch a round, no closing workflows, and the model of that size."""
    settings = [f"num_rounds={rounds}", "dataset=digits", "local_steps=1", "batch_size=8", "local_lr=0.001"]
    settings += [f"scatter_and_gather.min_clients={sites}"]
    job = export("hello-pt", folder, settings)
    keep_training(job)
    client = job / "app" / "config" / "config_fed_client.json"
    if layers is not None:
        shutil.copy(WIDE, job / "app" / "custom" / "wide.py")
        config = json.loads(client.read_text())
        for part in config["components"]:
            if part["id"] == "model":
                part |= {"path": "wide.Wide", "args": {"layers": layers}}
        client.write_text(json.dumps(config))
    return job


def measure(layers: int | None, sites: int, threads: int, rounds: int, folder: Path) -> dict[str, Any]:
    """One job."""
    name = f"{layers}-{sites}-{threads}"
    job, workspace = make_job(layers, sites, rounds, folder / f"job-{name}"), folder / name
    with Peaks(workspace) as peaks:
        wall = simulate(job, workspace, sites, threads)
    report = read_report(workspace)
    assert report.status == "completed", report.errors
    last = report.rounds[-1]
    checkpoint = workspace / "server" / "simulate_job" / "checkpoint.pt"
    entry = {
        "sites": sites,
        "threads": threads,
        "round_s": statistics.median(row.seconds for row in report.rounds[1:]),
        "wall_s": wall,
        "server_mb": peaks.server,
        "site_mb": max(peaks.sites.values()),
        "total_mb": peaks.total,
        "upload_bytes": last.upload_bytes,
        "download_bytes": last.download_bytes,
        "checkpoint_bytes": checkpoint.stat().st_size,
        "workspace_bytes": sum(path.stat().st_size for path in workspace.rglob("*") if path.is_file()),
    }
    shutil.rmtree(workspace)
    return entry


def show(entry: dict[str, Any]) -> str:
    """A line."""
    size = f"{entry['parameters']:,} parameters, {entry['sites']} sites, -t {entry['threads']}"
    memory = f"server {entry['server_mb']:.0f} MB, site {entry['site_mb']:.0f} MB, all {entry['total_mb']:.0f} MB"
    return f"{size}: {entry['round_s']:.1f} s a round, {memory}, up {entry['upload_bytes'] / 1e6:.1f} MB"


def main() -> None:
    """A line a job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--sites", type=int, nargs="+", help="only the jobs with so many; FILE keeps the others")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cases = [case for case in CASES if not args.sites or case[1] in args.sites]
    kept = json.loads(args.json.read_text())["rows"] if args.sites and args.json and args.json.exists() else []
    kept = [row for row in kept if row["sites"] not in args.sites]
    result: dict[str, Any] = {"machine": machine.describe(), "rounds": args.rounds, "rows": kept}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            entry = measure(*case, args.rounds, Path(folder))
            entry["parameters"] = entry["upload_bytes"] // entry["sites"] // 4
            result["rows"].append(entry)
            print(show(entry), flush=True)
            if args.json:
                args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
