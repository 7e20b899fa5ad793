# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A FLARE system of one's own on this machine, as `nvflare poc` makes it: prepared, started, and ended altogether."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bundle.forked_jobs import fork_jobs
from custom.data.folders import without_tilde
from custom.errors import BundleError

ROOT = Path(__file__).resolve().parents[1]
PORTS = (8002, 8003)  # that FLARE gives every POC
PREPARE_S, START_S, STOP_S = 120.0, 180.0, 90.0
READY_S = 150.0  # for FLARE to wait within START_S; 30 s if it is not told, too few for a busy machine
KILL_S = 10.0
RESTARTS, FLARE = "startup/sub_start.sh", "nvflare.private."  # in command lines of FLARE's processes


class Poc:
    """A provisioned system (mutual TLS, signed jobs) of one server and some sites, all on this machine.

    Args:
        folder: holds all that belongs to it; its job store outlives a restart.
        sites: how many.
    """

    def __init__(self, folder: Path, sites: int) -> None:
        self.folder = without_tilde(folder).resolve()
        self.sites = sites
        self.workspace = self.folder / "poc"
        self.log = self.folder / "poc.log"

    @property
    def kit(self) -> Path:
        """Of the project's admin."""
        return self._production() / "admin@nvidia.com"

    def prepare(self) -> None:
        """Provisions it, if that was not done before; ends what was left running by a dashboard that was killed.

        Raises:
            BundleError: a port is in use, there is a system with another number of sites, or FLARE cannot make one.
        """
        if self._processes():
            self.stop()
        for port in PORTS:
            if in_use(port):
                remedy = f"see who has it (ss -ltnp 'sport = :{port}'), and stop that; is another POC running?"
                raise BundleError(f"port {port} is in use, and FLARE needs it", code="port-unusable", remedy=remedy)
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # it holds every key of the system
        (self.folder / "empty").mkdir(exist_ok=True)  # `custom` must not be importable where FLARE starts
        downloads = without_tilde("~/.cache")  # data sets that are there already are not downloaded again
        downloads.mkdir(exist_ok=True)
        if not (linked := self.folder / "home" / ".cache").exists():
            linked.symlink_to(downloads)
        there = len(list(self._production().glob("site-*/startup")))
        if there == 0:
            self._nvflare(PREPARE_S, "poc", "prepare", "-n", str(self.sites), "--force")
        elif there != self.sites:
            raise BundleError(
                f"there is a system with {there} sites in {self.folder}",
                code="option-value",
                remedy=f"give --sites {there}, or another folder with --workspace; the old one keeps what was trained",
            )
        fork_jobs(self._production())

    def start(self) -> None:
        """Starts server and sites, and waits until they know each other.

        Raises:
            BundleError: FLARE does not start.
        """
        self._nvflare(START_S, "poc", "start", "--timeout", f"{READY_S:.0f}")

    def stop(self) -> None:
        """Ends all its processes; those that do not listen, by force. Jobs that run are aborted."""
        try:
            self._nvflare(STOP_S, "poc", "stop")
        except BundleError as error:
            print(f"{error}; ending it by force", file=sys.stderr)
        self._wait_for_the_end()
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait_for_the_end()

    def _wait_for_the_end(self) -> None:
        deadline = time.monotonic() + KILL_S
        while (self._processes() or any(map(in_use, PORTS))) and time.monotonic() < deadline:
            time.sleep(0.5)  # a process that is killed gives its port back a moment after it is gone from the list

    def _production(self) -> Path:
        return self.workspace / "example_project" / "prod_00"

    def _processes(self) -> list[int]:
        """Ids of its processes that are alive, those first that would start others again.

        FLARE writes only some into files, and the id in a file may be another program's by now.
        """
        own = [(pid, line) for pid, line in _all_processes() if f"{self._production()}/" in line]
        restarting = [pid for pid, line in own if RESTARTS in line]
        return restarting + [pid for pid, line in own if FLARE in line]

    def _nvflare(self, limit_s: float, *arguments: str) -> None:
        """FLARE's own command, in a session of its own: Ctrl-C is for this program, which then ends things in order."""
        command = [sys.executable, "-m", "nvflare.cli", *arguments]
        with self.log.open("a") as log:
            try:
                done = subprocess.run(
                    command,
                    cwd=self.folder / "empty",
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=limit_s,
                    check=False,
                    start_new_session=True,
                    umask=0o077,
                )
            except subprocess.TimeoutExpired as error:
                problem = f"nvflare {' '.join(arguments)} did not end within {limit_s:.0f} s"
                raise BundleError(problem, code="command-failed", remedy=f"see {self.log}") from error
        if done.returncode:
            raise BundleError(f"nvflare {' '.join(arguments)} failed", code="command-failed", remedy=f"see {self.log}")

    def _environment(self) -> dict[str, str]:
        """With a HOME of its own, whose ~/.nvflare FLARE may write to, and without this repository on the path."""
        paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        others = [path for path in paths if not Path(path).resolve().is_relative_to(ROOT)]
        threads = max(1, (os.cpu_count() or 1) // self.sites)
        return {
            "OMP_NUM_THREADS": str(threads),  # else the sites' threads wait for each other
            **os.environ,
            "HOME": str(self.folder / "home"),
            "NVFLARE_POC_WORKSPACE": str(self.workspace),
            "PYTHONPATH": os.pathsep.join(others),
        }


def in_use(port: int) -> bool:
    """Does a program listen at that port of this machine?"""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _all_processes() -> list[tuple[int, str]]:
    """Id and command line of each."""
    return [(process.pid, " ".join(process.info["cmdline"] or ())) for process in psutil.process_iter(["cmdline"])]
