# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Peaks of memory while the simulator runs: the kernel's own (VmHWM), so that a short one counts."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import psutil

PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
WORKER = "nvflare.private.fed.app.simulator.simulator_worker"  # a site's process


def peak_mb(status: str) -> float:
    """VmHWM of a /proc/PID/status."""
    match = PEAK.search(status)
    return int(match[1]) / 1024 if match else 0.0


class Peaks:
    """Follows the processes of a workspace; a context manager.

    Args:
        workspace: of the simulator.

    Attributes:
        server: megabytes at the peak of the process that is server and simulator.
        sites: likewise by site, of the largest of its processes.
    """

    def __init__(self, workspace: Path) -> None:
        self.server, self.sites = 0.0, dict[str, float]()
        self._workspace, self._stop = str(workspace), threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                if any(self._workspace in word for word in words):
                    self._look(process.pid, words)

    def _look(self, pid: int, words: list[str]) -> None:
        try:
            peak = peak_mb(Path(f"/proc/{pid}/status").read_text())
        except OSError:
            return  # it has just ended
        if WORKER in words:
            site = words[words.index("--client") + 1]
            self.sites[site] = max(self.sites.get(site, 0.0), peak)
        else:
            self.server = max(self.server, peak)
