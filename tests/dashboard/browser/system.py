# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A real FLARE system with the dashboard on it: `make dashboard` as a process, and its sites."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from tests.dashboard.served import PASSWORD
from tests.jobs.flare import ROOT, environment
from tests.ports import free_port

START_S, STOP_S = 400.0, 200.0  # about 30 s and 20 s where nothing else runs


class System:
    """What `make dashboard` starts, in a home and a workspace of its own, without a network.

    Args:
        folder: empty; everything goes there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.kits = folder / "poc" / "poc" / "example_project" / "prod_00"
        (folder / "home").mkdir(parents=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._env = environment(folder / "nothing", HOME=str(folder / "home"), PATH=path)
        command = [sys.executable, "-m", "dashboard", "--set-password"]
        subprocess.run(command, cwd=ROOT, env=self._env, input=f"{PASSWORD}\n", text=True, check=True)
        command = [
            sys.executable,
            "-m",
            "dashboard.local",
            "--workspace",
            str(folder / "poc"),
            "--port",
            str(self.port),
        ]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def wait(self) -> None:
        """Until the login page is there."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log()
            try:
                httpx.get(f"{self.url}/login", timeout=20, trust_env=False)
                return
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError(f"not served after {START_S} s: {self.log()}")

    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def dashboard(self) -> psutil.Process:
        """The process that serves the pages."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "--kit" in child.cmdline())

    def kill(self, name: str) -> None:
        """The server or a site, as a power cut would."""
        script = psutil.Process(int((self.kits / name / "daemon_pid.fl").read_text()))  # it would start it again
        assert str(self.kits / name) in _command(script)
        processes = [script, *script.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)

    def start(self, name: str) -> None:
        """The server or a site, with FLARE's own script; it takes about 10 s to be there."""
        home = self.folder / "poc" / "home"
        with (self.folder / f"{name}.log").open("w") as log:
            subprocess.run(
                ["bash", str(self.kits / name / "startup" / "start.sh")],
                cwd=self.folder / "poc" / "empty",
                env=self._env | {"HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
                start_new_session=True,
            )

    def stop(self) -> list[str]:
        """Ends it as Ctrl-C does, and then by force what is left of it: their command lines, which should be none."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        left = [process for process in psutil.process_iter() if str(self.folder) in _command(process)]
        commands = [_command(process) for process in left]
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)
        return commands


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""
