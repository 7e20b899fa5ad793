# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Peaks of memory while the simulator runs, sampled ten times a second.

A page that several processes share counts in each by its share (PSS): forked processes share what was imported.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

import psutil

PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
SHARE = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
SITE = "site_process.py"  # a site's process
FORK_SERVER = "fork_server.py"


def peak_mb(status: str) -> float:
    """VmHWM of a /proc/PID/status: the kernel's own, with all that is shared."""
    match = PEAK.search(status)
    return int(match[1]) / 1024 if match else 0.0


def share_mb(rollup: str) -> float:
    """Megabytes, from a /proc/PID/smaps_rollup."""
    match = SHARE.search(rollup)
    return int(match[1]) / 1024 if match else 0.0


class Peaks:
    """Follows the processes of a workspace; a context manager.

    Args:
        workspace: of the simulator.

    Attributes:
        server: megabytes at the peak of the process that is server and simulator.
        sites: likewise by site, of the largest of its processes.
        highest: VmHWM by site, of the largest of its processes.
        total: at the peak of all of them and the fork server together.
    """

    def __init__(self, workspace: Path) -> None:
        self.server, self.total = 0.0, 0.0
        self.sites: dict[str, float] = {}
        self.highest: dict[str, float] = {}
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
            found = psutil.process_iter(["cmdline"])
            self.total = max(self.total, sum(self._look(one.pid, one.info["cmdline"] or []) for one in found))

    def _look(self, pid: int, words: list[str]) -> float:
        """A process's megabytes now; nothing of one that is not of the workspace's."""
        programs = [Path(word).name for word in words[1:2]]
        if FORK_SERVER not in programs and not any(self._workspace in word for word in words):
            return 0.0
        try:
            share = share_mb(Path(f"/proc/{pid}/smaps_rollup").read_text())
            peak = peak_mb(Path(f"/proc/{pid}/status").read_text())
        except OSError:
            return 0.0  # it has just ended
        if SITE in programs:
            site = words[words.index("--client") + 1]
            self.sites[site] = max(self.sites.get(site, 0.0), share)
            self.highest[site] = max(self.highest.get(site, 0.0), peak)
        elif FORK_SERVER not in programs:
            self.server = max(self.server, share)
        return share
