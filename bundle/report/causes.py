# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The first real cause in the logs of a job, for when progress.jsonl has none: FLARE's last line is rarely it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle.report.locate import Run

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]\d+")
FRAME = re.compile(r'  File "(?P<file>[^"]+)", line (?P<line>\d+), in ')
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LOG_NAMES = ("log.txt", "error_log.txt")
START = "Traceback (most recent call last):"


@dataclass(frozen=True, order=True)
class Cause:
    """A failure in a log; the earliest is the cause of the others."""

    time: str
    text: str
    log: Path

    def __str__(self) -> str:
        return f"{self.text} (see {self.log})"


def first_cause(run: Run, sites: list[str]) -> str:
    """The earliest traceback's last line with the place it was raised, else the first error line; empty if none."""
    logs = list(_logs(run, sites))
    causes = sorted(cause for log in logs for cause in _tracebacks(log))
    if not causes:
        causes = sorted(cause for log in logs for cause in _error_lines(log))
    return str(causes[0]) if causes else ""


def _logs(run: Run, sites: list[str]) -> Iterator[Path]:
    folders = [run.folder, *(child for child in _folders(run.folder) if child.name in sites)]
    if run.sites_root:
        names = sites or [child.name for child in _folders(run.sites_root) if child.name != "local"]
        folders += [run.sites_root / name / run.job_id for name in names]
        if run.job_id == "simulate_job":  # one job a workspace: the logs one level up are its own too
            folders += [run.sites_root, *(run.sites_root / name for name in ("server", *names))]
    for folder in dict.fromkeys(folders):
        for name in (*LOG_NAMES, "simulator.log"):
            if (folder / name).is_file():
                yield folder / name


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []


def _lines(log: Path) -> list[str]:
    return COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace")).splitlines()


def _tracebacks(log: Path) -> Iterator[Cause]:
    """The first traceback of the log. Of a chain of exceptions the first is the one that was raised first."""
    time, place, inside = "9", "", False
    for line in _lines(log):
        stamp = TIME.search(line)
        if not inside:
            time = stamp.group() if stamp else time
            inside = line.strip().endswith(START)
        elif frame := FRAME.match(line):
            place = _place(frame["file"], frame["line"]) or place
        elif line.strip() and not line.startswith(" "):
            yield Cause(time, line.strip() + (f", raised in {place}" if place else ""), log)
            return


def _place(file: str, line: str) -> str:
    """`custom/executors/trainer.py line 80`; the job's own code is where the reader can do something."""
    parts = Path(file).parts
    own = [index for index, part in enumerate(parts) if part in ("custom", "controllers")]
    return f"{'/'.join(parts[own[-1] :])} line {line}" if own else f"{Path(file).name} line {line}"


def _error_lines(log: Path) -> Iterator[Cause]:
    for line in _lines(log):
        if " ERROR " in line or " CRITICAL " in line or "- ERROR -" in line:
            stamp = TIME.search(line)
            yield Cause(stamp.group() if stamp else "9", line.strip(), log)
            return
