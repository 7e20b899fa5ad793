# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Export a job, run it in FLARE's simulator with progress, and report; finished means finished by evidence."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bundle.events import Follower
from bundle.export import export
from bundle.jobs import Job, read_job
from bundle.live import Live
from bundle.report.locate import SIMULATED, Run
from bundle.report.model import Report
from bundle.report.reading import read_run
from bundle.report.text import to_text
from bundle.simulator import Simulator
from custom.errors import BundleError
from custom.progress import FILE_NAME

POLL_S = 0.2
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(
    name_or_path: str, sites: int, threads: int | None, workspace: Path | None, assignments: Sequence[str]
) -> Report | None:
    """Runs the job; prints progress and the report.

    Returns:
        The report, or None if the user stopped the run.

    Raises:
        BundleError: something is wrong that can be known before FLARE starts.
    """
    name = read_job(name_or_path).name
    where = new_workspace(workspace, name)
    with tempfile.TemporaryDirectory(prefix="flare-bundle-") as temporary:
        return run_exported(export(name_or_path, Path(temporary, name), assignments), sites, threads, where)


def new_workspace(workspace: Path | None, name: str) -> Path:
    """The absolute path of the folder to run in, which is still to be made.

    Raises:
        BundleError: it is in use, or FLARE could not use it.
    """
    where = (workspace or Path("workspace", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")).expanduser().absolute()
    _check_workspace(where)
    return where


def run_exported(job: Job, sites: int, threads: int | None, where: Path) -> Report | None:
    """As `run`, of a plain job folder."""
    threads = sites if threads is None else threads
    check_sites(job, sites, threads)
    where.parent.mkdir(parents=True, exist_ok=True)
    print(f"job {job.name}: {sites} sites, {threads} at a time, in FLARE's simulator")
    print(f"workspace {where}")
    code = _simulate(job, where, sites, threads)
    report = read_run(Run(SIMULATED, where / "server" / SIMULATED, where))
    if code is None:
        print(f"stopped after {len(report.rounds)} rounds; what is left: python -m bundle report {where}")
        print(f"to go on: python -m bundle resume -w {where}")
        return None
    print(f"\n{to_text(report)}\nFLARE's output: {where / 'simulator.log'}")
    if code and report.finished:
        print(f"FLARE ended with exit code {code} after the job had finished")
    return report


def _simulate(job: Job, workspace: Path, sites: int, threads: int) -> int | None:
    """Follows the simulator to its end; the exit code, or None if the user stopped it."""
    live = Live()
    follower = Follower(workspace / "server" / SIMULATED / FILE_NAME)
    with _as_keyboard_interrupt():
        simulator = Simulator(job.folder, workspace, sites, threads)
        print(f"FLARE's output goes to {simulator.log}", flush=True)
        try:
            while (code := simulator.poll()) is None:
                for event in follower.poll():
                    live.show(event)
                live.heartbeat()
                time.sleep(POLL_S)
            for event in follower.poll():
                live.show(event)
            return code
        except KeyboardInterrupt:
            live.line("stopping FLARE's processes")
            return None
        finally:
            for number in INTERRUPTS:  # an impatient second Ctrl-C must not leave half of them alive
                signal.signal(number, signal.SIG_IGN)
            simulator.stop()
            simulator.close()


@contextmanager
def _as_keyboard_interrupt() -> Iterator[None]:
    """A plain `kill`, or a closed terminal, must not leave FLARE's processes behind either."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_workspace(workspace: Path) -> None:
    if workspace.exists() and (not workspace.is_dir() or any(workspace.iterdir())):
        held = "holds an earlier run" if (workspace / "server").is_dir() else "exists and is not empty"
        raise BundleError(
            f"{held}, and FLARE would delete it", key=str(workspace), remedy="choose another -w, or remove it first"
        )
    if any(character.isspace() for character in str(workspace)):
        raise BundleError("FLARE's simulator cannot have blanks in its path", key=f"-w {workspace}")


def check_sites(job: Job, sites: int, threads: int) -> None:
    if sites < 1:
        raise BundleError(key=f"-n {sites}", expected="1 or more sites", got=sites)
    if not 1 <= threads <= sites:
        raise BundleError(key=f"-t {threads}", expected=f"1 to {sites}, as there are {sites} sites", got=threads)
    if sites < job.min_clients:
        raise BundleError(
            key=f"-n {sites}", expected=f"at least {job.min_clients} sites (min_clients in meta.json)", got=sites
        )
    for workflow in job.workflows:
        needed = workflow.get("args", {}).get("min_clients", 0)
        if isinstance(needed, int) and needed > sites:
            key = f"{workflow.get('id')}.min_clients"
            raise BundleError(key=f"-n {sites}", expected=f"at least {needed} sites ({key})", got=sites)
