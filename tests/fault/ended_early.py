# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the tests of jobs that end early have in common."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import torch

SETTINGS = ("dataset=digits", "num_rounds=4", "lr_schedule=cosine")
FINAL = "app_server/FL_global_model.pt"
BEST = "app_server/best_FL_global_model.pt"
TOLERANCE = 1e-6  # bit-equal where the work is done by one thread a process on one machine, as here


def wait_for_rounds(progress: Path, number: int, limit_s: float = 240) -> None:
    """Until `number` rounds have been recorded there."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if progress.is_file() and progress.read_text().count('"event": "round"') >= number:
            return
        time.sleep(0.05)
    raise AssertionError(f"{number} rounds were not completed within {limit_s} s: {progress}")


def kill(processes: Iterable[psutil.Process]) -> None:
    """With SIGKILL, and all that they have started, as the end of a machine would."""
    processes = list(processes)
    processes += [child for process in processes for child in process.children(recursive=True)]
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


def processes_of_job(job_id: str) -> list[int]:
    """Of this job, at the server and the sites."""
    commands = {process.pid: process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])}
    return [pid for pid, command in commands.items() if job_id in command]


def difference(one: Path, other: Path) -> float:
    """The largest difference between two saved models, over all tensors."""
    first, second = (torch.load(path, weights_only=True)["model"] for path in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)
