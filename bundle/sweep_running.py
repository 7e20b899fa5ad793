# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Several simulators side by side, each a point of a sweep, all of them ended when the user stops."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bundle.events import Follower
from bundle.interrupts import interrupts_call
from bundle.live import Live
from bundle.report.locate import SIMULATED, Run
from bundle.report.reading import read_run
from bundle.report.wording import human_bytes, human_seconds, number
from bundle.run import POLL_S
from bundle.simulator import Simulator
from bundle.sweep_results import Result
from custom.events import RoundEnded
from custom.progress import FILE_NAME, write_atomically


@dataclass(frozen=True)
class Size:
    """How much runs at a time.

    Attributes:
        sites: of each point.
        threads: sites of a point at a time.
        jobs: points at a time.
    """

    sites: int
    threads: int
    jobs: int


class Running:
    """One point in the simulator."""

    def __init__(self, folder: Path, result: Result, size: Size) -> None:
        self.folder, self.result = folder, result
        self.workspace = folder / "workspace"
        self.simulator = Simulator(folder / "job", self.workspace, size.sites, size.threads)
        self.phase = "starting"
        self._follower = Follower(self.workspace / "server" / SIMULATED / FILE_NAME)

    def ended(self) -> bool:
        """Looks how far it is."""
        code = self.simulator.poll()
        for event in self._follower.poll():
            if isinstance(event, RoundEnded):
                self.phase = f"round {event.round}/{event.num_rounds}"
        if code is None:
            return False
        self._record(code)
        return True

    def _record(self, code: int) -> None:
        report = read_run(Run(SIMULATED, self.workspace / "server" / SIMULATED, self.workspace))
        write_atomically(self.folder / "report.json", json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n")
        self.result.fill(report)
        if not self.result.finished and not self.result.error:
            self.result.error = f"FLARE ended with exit code {code} (see {self.simulator.log})"
        self.result.save(self.folder)

    def stop(self) -> None:
        """Ends what is left of its processes."""
        self.simulator.stop()
        self.simulator.close()


def run_all(waiting: Sequence[Result], out: Path, size: Size, ended: Callable[[], object]) -> bool:
    """Runs each point's exported job, some at a time, and fills the results.

    Args:
        waiting: the points to run, in their order; the folder of each is prepared.
        out: folder of the sweep.
        size: of the runs.
        ended: called after each point; what it raises ends the sweep.

    Returns:
        False if the user stopped it.
    """
    left, jobs = list(waiting), min(size.jobs, max(1, len(waiting)))
    running: list[Running] = []
    live = Live()
    with _cores_shared(jobs * size.threads), _interrupts_noticed() as interrupted:
        try:
            while (left or running) and not interrupted.is_set():
                while left and len(running) < jobs and not interrupted.is_set():
                    result = left.pop(0)
                    live.line(f"started    {result.point.label}")
                    running.append(Running(out / result.point.name, result, size))
                for one in [one for one in running if one.ended()]:
                    running.remove(one)
                    one.stop()
                    live.line(_ended_line(one.result))
                    ended()
                live.phase = "; ".join(f"{one.result.point.label}: {one.phase}" for one in running)
                live.heartbeat()
                time.sleep(POLL_S)
        finally:
            _stop(running, live)
    return not left and not running


def _stop(running: Sequence[Running], live: Live) -> None:
    """All at once: each may take its seconds."""
    if running:
        with suppress(OSError):  # of a pipe or terminal that has gone
            live.line("stopping FLARE's processes")
        with ThreadPoolExecutor(len(running)) as pool:
            list(pool.map(Running.stop, running))


def _ended_line(result: Result) -> str:
    if not result.finished:
        return f"! {result.status}  {result.point.label}: {result.error}"
    score = f"{result.key_metric} {number(result.value(result.key_metric))}"
    costs = f"up {human_bytes(result.upload_bytes)}  {human_seconds(result.seconds)}"
    return f"{result.status}  {result.point.label}  {score}  {costs}"


@contextmanager
def _cores_shared(processes: int) -> Iterator[None]:
    """Each site's share of the cores, for the simulators that are started meanwhile; a user's own value stays."""
    name = "OMP_NUM_THREADS"
    ours = name not in os.environ
    os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // processes)))
    try:
        yield
    finally:
        if ours:
            os.environ.pop(name, None)


@contextmanager
def _interrupts_noticed() -> Iterator[threading.Event]:
    """Ctrl-C, `kill` or a closed terminal sets the event, and raises nothing: no process may start unnoticed."""
    event = threading.Event()

    with interrupts_call(lambda number, frame: event.set()):
        yield event
