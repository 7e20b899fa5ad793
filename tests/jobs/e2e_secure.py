# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`make e2e-secure`: provisions `secure`, starts its processes on loopback, and runs every job to the end.

Small settings and embedded data: it shows that everything arrives and ends, not what can be learnt. It ends with 0 only
if the report of every job, made from the result that a lead downloaded, says that it was completed, and if the guards
of the kits have refused nothing meanwhile.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from bundle.provision import provision
from bundle.templates import Wanted
from tests.jobs.deployment import LEAD, Deployment, NotReady
from tests.jobs.flare import bundle
from tests.ports import free_port

JOBS = {
    "hello-pt": ("dataset=digits", "num_rounds=2"),
    "fl-plus-ft": ("dataset=digits", "num_rounds=2", "fine_tune_epochs=2"),
    "perfedavg": ("dataset=digits", "fed_avg.num_rounds=2", "meta_train.num_rounds=1", "writers_per_round=4"),
    "sparse-bert": ("model_name_or_path=embedded", "dataset=headlines", "num_rounds=3", "local_steps=4"),
    "mnist": ("dataset=digits", "num_rounds=2"),
    "chest-xray": ("dataset=synthetic", "num_rounds=2"),
}


def main() -> int:
    """Runs the jobs one after the other; prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=2, help="how many (default: 2)")
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS), metavar="JOB", help="only these")
    parser.add_argument(
        "--folder", type=Path, help="new folder for kits, logs and results, kept (default: a passing one)"
    )
    parser.add_argument("--template", default="secure", choices=["secure", "secure-no-byoc"], help="(default: secure)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flare-e2e-") as temporary:
        return run(options.folder.absolute() if options.folder else Path(temporary), options)


def run(folder: Path, options: argparse.Namespace) -> int:
    """In `folder`; the exit code."""
    names = tuple(f"site-{number + 1}" for number in range(options.sites))
    kits = provision(options.template, folder / "out", Wanted(names, port=free_port()))
    print(f"provisioned {options.template} with {', '.join(names)}: {kits.folder}", flush=True)
    code = () if options.template == "secure" else ("--no-code",)
    completed, refused = 0, []
    try:
        started = time.monotonic()
        with Deployment(kits.folder, kits.server, kits.sites, folder / "work", data_root="/nowhere") as system:
            print(f"server and {len(names)} sites are up after {time.monotonic() - started:.0f} s", flush=True)
            for name in options.jobs:
                problem = run_job(system, name, folder, code)
                completed += not problem
            audit = "".join(system.audit(name) for name in (kits.server, *kits.sites))
            refused = [line for line in audit.splitlines() if "]refused: " in line]
            print("".join(f"FAILED  refused what the jobs need: {line}\n" for line in refused), end="", flush=True)
    except NotReady as error:
        print(f"FAILED  {error}")
        return 1
    print(f"{completed} of {len(options.jobs)} jobs completed; all processes are ended")
    return 0 if completed == len(options.jobs) and not refused else 1


def run_job(system: Deployment, name: str, folder: Path, code: tuple[str, ...]) -> str:
    """Submits, waits, downloads, reports; what went wrong, or an empty string."""
    started = time.monotonic()
    job = folder / "jobs" / name
    settings = [option for setting in JOBS[name] for option in ("--set", setting)]
    exported = bundle("export", name, str(job), *code, *settings, cwd=folder)
    assert exported.returncode == 0, exported.stdout
    done = system.submit(LEAD, job, limit_s=900, download=True)
    ended = re.search(r"ENDED (\S+) FINISHED:(\S+) (\S+)", done)
    if ended is None:
        problem, status = done[-2000:], "not ended"
    else:
        out = folder / f"{name}.json"
        reported = bundle("report", ended[3], "--json", str(out), cwd=folder)
        report = json.loads(out.read_text()) if reported.returncode == 0 else {}
        status = f"FLARE: {ended[2]}, report: {report.get('status', 'none')}"
        good = ended[2] == "COMPLETED" and report.get("status") == "completed"
        problem = "" if good else reported.stdout[-2000:]
    print(f"{'FAILED' if problem else 'passed'}  {name}  {status}  {time.monotonic() - started:.0f} s", flush=True)
    if problem:
        print(problem, flush=True)
    return problem


if __name__ == "__main__":
    sys.exit(main())
