# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FLARE's simulator as a process of its own that can be stopped with everything it started."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bundle import ROOT
from bundle.exit_code import in_words, killer
from bundle.forked import start
from bundle.in_use import MARK, PROGRAM, mark, marked

LOG = "simulator.log"
STOP_S = 4.0
# FLARE's time-outs for a site that is silent are for networks; here we tell it which processes have ended. In the first
# of these a message arrives that such a process has sent before.
LOST = {"NVFLARE_DEAD_CLIENT_GRACE_PERIOD": "2", "NVFLARE_DEAD_CLIENT_CHECK_LEAD_TIME": "2"}
# How often FLARE asks components whether they are ready to end.
END = {"NVFLARE_END_RUN_READINESS_CHECK_INTERVAL": "0.05"}
NEEDED = "nvflare.app_opt.tracking.tb.tb_receiver"  # of `fork_server.PRELOADED` the last one that the server imports


class Simulator:
    """One run of the simulator.

    Args:
        job: an exported job.
        workspace: an absolute path of a folder that the caller holds: with nothing in it but the lock.
        sites: how many.
        threads: how many of them run at the same time.
    """

    def __init__(self, job: Path, workspace: Path, sites: int, threads: int) -> None:
        self.workspace = workspace
        self.log = workspace / LOG
        self._ended = False
        self._empty = tempfile.TemporaryDirectory(prefix="flare-bundle-")
        command = [sys.executable, str(PROGRAM), str(job)]
        command += ["-w", str(workspace), "-n", str(sites), "-t", str(threads), "-m", str(sites)]
        workspace.mkdir(parents=True, exist_ok=True)
        output = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)  # and through no link
        try:
            env = {**LOST, **END, **environment(threads), MARK: mark(workspace)}
            self.process = start(
                command,
                env=env,
                cwd=self._empty.name,
                output=output,
                session=True,
                after=NEEDED,
                refused=self._not_forked,
            )
        finally:
            os.close(output)

    def _not_forked(self, reason: str) -> None:
        self._say(f"FLARE's simulator is not forked: {reason}", "WARNING")

    def poll(self) -> int | None:
        """The exit code, or None while it runs. Of a signal that has ended it the log tells then."""
        code = self.process.poll()
        if code is not None and not self._ended:
            self._ended = True
            if getattr(self.process, "lost", False):
                self._say("the fork server has ended, and with it FLARE's simulator and all sites: was it killed?")
            elif killer(code):
                self._say(f"FLARE's simulator {in_words(code)}")
        return code

    def wait(self, seconds: float) -> None:
        """So long, or until it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def stop(self) -> None:
        """Ends all that is left of the run: each site is a session of its own, and parents may have ended before."""
        self._ended = True  # a signal that ends it from here on is ours
        for action in (psutil.Process.terminate, psutil.Process.kill, psutil.Process.kill):
            if not (processes := marked(self.workspace)):
                break
            for process in processes:
                _quietly(action, process)
            psutil.wait_procs(processes, timeout=STOP_S)
        self.process.poll()

    def close(self) -> None:
        """Removes the empty folder it ran in."""
        self._empty.cleanup()

    def _say(self, text: str, level: str = "ERROR") -> None:
        with suppress(OSError):  # of a disk that is full, for one
            log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            with os.fdopen(log, "w", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')},000 - {level} - {text}\n")


def _quietly(action: Callable[[psutil.Process], None], process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        action(process)


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
