# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FLARE's simulator as a process of its own that can be stopped with everything it started."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bundle import ROOT

PROGRAM = Path(__file__).with_name("simulator_process.py")
PROGRAMS = {str(PROGRAM), "simulator", "nvflare.private.fed.app.simulator.simulator"}  # ours, and FLARE's two
LOG = "simulator.log"
STOP_S = 5.0


class Simulator:
    """One run of the simulator.

    FLARE empties the workspace when it starts, so its output begins beside the workspace and moves in when it may.

    Args:
        job: an exported job.
        workspace: an absolute path; new or empty.
        sites: how many.
        threads: how many of them run at the same time.
    """

    def __init__(self, job: Path, workspace: Path, sites: int, threads: int) -> None:
        self.workspace = workspace
        self.log = workspace / LOG
        self._first_log = workspace.with_name(f"{workspace.name}.{LOG}")
        self._empty = tempfile.TemporaryDirectory(prefix="flare-bundle-")
        command = [sys.executable, str(PROGRAM), str(job)]
        command += ["-w", str(workspace), "-n", str(sites), "-t", str(threads)]
        with self._first_log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self._empty.name,
                env=environment(threads),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """The exit code, or None while it runs. Moves the log to its place as soon as there is one."""
        code = self.process.poll()
        if self._first_log.exists() and ((self.workspace / "server").is_dir() or code is not None):
            self.workspace.mkdir(parents=True, exist_ok=True)
            self._first_log.replace(self.log)
        return code

    def stop(self) -> None:
        """Ends the simulator and all that it started (each site is a session of its own, so no group has them all)."""
        try:
            parent = psutil.Process(self.process.pid)
            processes: Sequence[psutil.Process] = [*parent.children(recursive=True), parent]
        except psutil.NoSuchProcess:
            processes = []
        for process in processes:
            _quietly(process.terminate)
        _, alive = psutil.wait_procs(processes, timeout=STOP_S)
        for process in alive:
            _quietly(process.kill)
        psutil.wait_procs(alive, timeout=STOP_S)
        self.poll()

    def close(self) -> None:
        """Removes the empty folder it ran in."""
        self._empty.cleanup()


def runs_in(workspace: Path) -> bool:
    """Does a simulator of this machine work in that folder?"""
    workspace = workspace.resolve()
    processes = [process.info for process in psutil.process_iter(["cmdline", "cwd"])]
    simulators = [info for info in processes if not PROGRAMS.isdisjoint(info["cmdline"] or ())]
    return any(Path(info["cwd"] or "/", part).resolve() == workspace for info in simulators for part in info["cmdline"])


def _quietly(action: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        action()


def environment(threads: int) -> dict[str, str]:
    """Ours, with the cores shared out among the sites, and without this repository on Python's path.

    The repository's own `custom` would otherwise be imported instead of the job's.
    """
    env = dict(os.environ)
    env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // threads)))
    paths = [path for path in env.pop("PYTHONPATH", "").split(os.pathsep) if path and Path(path).resolve() != ROOT]
    if paths:
        env["PYTHONPATH"] = os.pathsep.join(paths)
    return env
