# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Runs an exported job in FLARE's simulator and reads what the job wrote about itself."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from bundle.forked import SOCKET, fork_server, start
from bundle.report.model import Report
from bundle.simulator import PROGRAM

_forks = ExitStack()
atexit.register(_forks.close)
HANGS_S = 120.0  # a run of FLARE's own command that takes longer
TRIES = 3
BEST, FINAL = "SRV_best_FL_global_model.pt", "SRV_FL_global_model.pt"


def export(job: str, out: Path, settings: list[str]) -> Path:
    """`python -m bundle export`."""
    options = [option for setting in settings for option in ("--set", setting)]
    subprocess.run([sys.executable, "-m", "bundle", "export", job, str(out), *options], check=True, capture_output=True)
    return out


def keep_training(job: Path) -> None:
    """Leaves an exported hello-pt the workflows that initialise and train, and no validation after them."""
    path = job / "app" / "config" / "config_fed_server.json"
    config = json.loads(path.read_text())
    config["workflows"] = [flow for flow in config["workflows"] if flow["id"] in ("pre_train", "scatter_and_gather")]
    path.write_text(json.dumps(config))


def usual_environment() -> dict[str, str]:
    """This process's, but Python keeps what it compiles, as it does where nobody has switched that off."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def simulate(job: Path, workspace: Path, sites: int, threads: int = 0, own: bool = False) -> float:
    """Runs FLARE's simulator, as `bundle run` does, from an empty folder; the wall time in seconds.

    With `own` by FLARE's own command; where that hangs, as it does when it gives two sites one name, it is started
    again, and the time of the run that ended is given.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    if not own and SOCKET not in os.environ:
        _forks.enter_context(fork_server())  # for all runs of this process
    empty = workspace.parent / f"{workspace.name}-started-in"
    empty.mkdir()
    threads = threads or sites
    environment = usual_environment() | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // threads))}
    program = [str(Path(sys.executable).with_name("nvflare")), "simulator"] if own else [sys.executable, str(PROGRAM)]
    command = [*program, str(job.absolute()), "-w", str(workspace), "-n", str(sites), "-t", str(threads)]
    log = workspace.parent / f"{workspace.name}.log"
    for _ in range(TRIES):
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
        started = time.monotonic()
        with log.open("wb") as output:
            process = start(command, cwd=str(empty), env=environment, output=output.fileno(), session=True)
        try:
            code = process.wait(HANGS_S if own else None)
        except subprocess.TimeoutExpired:
            print(f"FLARE's simulator hangs ({HANGS_S:g} s); again", flush=True)
            for one in (*psutil.Process(process.pid).children(recursive=True), process):
                one.kill()
            process.wait()
            continue
        if code == 0:
            return time.monotonic() - started
        end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"the simulator ended with code {code}:\n{end}")
    raise RuntimeError(f"FLARE's simulator hung {TRIES} times")


def best_model(report: Report) -> str:
    """The row of the best global model in the cross-site matrix: the last one's, where they are the same."""
    return BEST if BEST in report.cross_site else FINAL


def server_json(workspace: Path, name: str) -> Any:
    """A JSON file from the server's run folder."""
    return json.loads((workspace / "server" / "simulate_job" / name).read_text())
