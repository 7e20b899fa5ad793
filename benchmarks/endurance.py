# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""hello-pt for 200 rounds at four sites of a provisioned system, one of which is stopped for 30 s every 20 rounds.

    python -m benchmarks.endurance [--rounds 200] [--json FILE]

Every 20 rounds the memory (RSS) and the open files of each process, and the size of the server's run folder, are noted;
then the next site in turn is stopped with all its processes (SIGSTOP), and goes on after 30 s (SIGCONT). The rounds go
on without it. Ends with 1 if a round is missing, a site took part in fewer than half, or something has grown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.simulate import export
from bundle.admin_kit import read_kit
from bundle.connection import Connection
from bundle.events import Follower
from bundle.provision import provision
from bundle.report.locate import Run
from bundle.report.reading import read_run
from bundle.templates import Wanted
from custom.events import RoundEnded
from tests.fault import sites
from tests.jobs.deployment import LEAD, Deployment, free_port

SITES = ("site-1", "site-2", "site-3", "site-4")
EVERY, STOPPED_S, LIMIT_S = 20, 30.0, 7200.0
GROWTH = 0.10
SETTINGS = [
    "dataset=digits",
    "local_steps=5",
    "scatter_and_gather.min_clients=3",
    "scatter_and_gather.wait_time_after_min_received=1",
]


def sample(system: Deployment, run: Path) -> dict[str, Any]:
    """Megabytes and open files by name, and the bytes of the run folder."""
    megabytes, files = {}, {}
    for name in (system.server, *SITES):
        mine = sites.processes_of(system, name)
        megabytes[name] = sum(process.memory_info().rss for process in mine) / 1e6
        files[name] = sum(process.num_fds() for process in mine)
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    return {"megabytes": megabytes, "files": files, "run_bytes": size}


def follow(system: Deployment, run: Path, rounds: int) -> list[dict[str, Any]]:
    """Until the job has ended; the samples.

    Raises:
        TimeoutError: it did not end.
    """
    follower, samples = Follower(run / "progress.jsonl"), list[dict[str, Any]]()
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        for event in follower.poll():
            if event.event == "job_ended":
                return samples
            if not isinstance(event, RoundEnded) or event.round % EVERY:
                continue
            samples.append({"round": event.round, **sample(system, run)})
            print(json.dumps(samples[-1]), flush=True)
            if event.round < rounds:
                stop_for_a_while(system, SITES[len(samples) % len(SITES)])
        time.sleep(0.2)
    raise TimeoutError(f"the job did not end within {LIMIT_S:.0f} s")


def stop_for_a_while(system: Deployment, site: str) -> None:
    """The site, with all its processes."""
    stopped = sites.freeze(system, site)
    time.sleep(STOPPED_S)
    sites.thaw(stopped)


def grown(samples: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By how much, from the first sample to the last, as shares of the first."""
    first, last = samples[0], samples[-1]
    growth = {
        kind: {name: last[kind][name] / value - 1 for name, value in first[kind].items()}
        for kind in ("megabytes", "files")
    }
    return growth | {"run": {"bytes": last["run_bytes"] / first["run_bytes"] - 1}}


def main() -> int:
    """Prints the samples, then what has grown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flare-endurance-") as temporary:
        folder = Path(temporary)
        kits = provision("secure", folder / "out", Wanted(SITES, port=free_port()))
        job = export("hello-pt", folder / "hello-pt", [*SETTINGS, f"num_rounds={args.rounds}"])
        with Deployment(kits.folder, kits.server, SITES, folder / "work", data_root="/nowhere") as system:
            connection = Connection(read_kit(kits.folder / LEAD))
            started = time.monotonic()
            job_id = str(connection.run(lambda session: session.submit_job(str(job))))
            connection.close()
            run = kits.folder / kits.server / job_id
            samples = follow(system, run, args.rounds)
            report = read_run(Run(job_id, run))
            seconds = time.monotonic() - started
    took_part = {site: sum(site in row.sites for row in report.rounds) for site in SITES}
    growth = grown(samples)
    good = len(report.rounds) == args.rounds and min(took_part.values()) >= args.rounds // 2
    good = good and max(growth["megabytes"].values()) <= GROWTH and max(growth["files"].values()) <= 0
    print(f"{report.status}: {len(report.rounds)} rounds in {seconds:.0f} s, took part: {took_part}; growth: {growth}")
    if args.json:
        result = {"machine": machine.describe(), "rounds": len(report.rounds), "seconds": seconds, "every": EVERY}
        result |= {"stopped_s": STOPPED_S, "status": report.status, "took_part": took_part, "samples": samples}
        args.json.write_text(json.dumps(result | {"growth": growth, "target_growth": GROWTH}, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
