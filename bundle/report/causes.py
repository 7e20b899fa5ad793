# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The first real cause in the logs of a job, for when progress.jsonl has none: FLARE's last line is rarely it.

Every traceback and every line with ERROR is a candidate. They are ranked by what they say, then by time: a full disk,
no memory, or a signal that ended the simulator explains whatever came before it was noticed; what FLARE says of a
process that is gone explains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bundle.report.locate import Run
from custom.names import is_name
from custom.printable import printable

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]\d+")
FRAME = re.compile(r'  File "(?P<file>[^"]+)", line (?P<line>\d+), in ')
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LOG_NAMES = ("log.txt", "error_log.txt")
START = "Traceback (most recent call last):"
RESOURCES = re.compile(
    r"No space left on device|Disk quota exceeded|Errno (28|122)\b|Cannot allocate memory|MemoryError|out of memory"
    r"|Too many open files|FLARE's simulator was killed by signal",
    re.IGNORECASE,
)
ARGUMENTS = re.compile(r"\w+\.py: error: ")  # of argparse, in a process that FLARE started
PATH = re.compile(r"unrecognized arguments|(Permission|FileNotFound)Error.*|NotADirectoryError")
CONSEQUENCES = re.compile(
    r"EXECUTION_EXCEPTION|TASK_ABORTED|task failed|Failed to create connection to the child process|Subprocess died"
    r"|Communication error with client|Aborting current RUN|aborting ServerRunner|deployment policy violation"
    r"|dead (client|job)|[Cc]onnection .*(closed|reset|refused)|CommError|BrokenPipeError|EOFError|CancelledError"
    r"|KeyboardInterrupt|heartbeat|[Cc]an(no|')t (send|reach)|no connection|TIMEOUT|cell .*timeout|shutting down"
)
BLANK_REMEDY = "FLARE's simulator breaks a path at a blank or a quote; python -m bundle run takes any path"
OTHER_CODE = re.compile(r"No module named '(custom|controllers)\b")
OTHER_CODE_REMEDY = (
    "is there a folder or file of that name where the command was typed, or on PYTHONPATH? start FLARE elsewhere"
)
RESOURCE, REAL, ERROR_LINE, CONSEQUENCE = range(4)
MOST = 1000  # candidates of a log


@dataclass(frozen=True, order=True)
class Cause:
    """A failure in a log; of those of the lowest rank the earliest is the cause of the others."""

    rank: int
    time: str
    line: int
    text: str
    log: Path

    def __str__(self) -> str:
        return f"{self.text} (see {self.log})"


def first_cause(run: Run, sites: list[str]) -> str:
    """The failure that explains the others, a traceback with the place it was raised; empty if there is none."""
    best = _best(run, sites)
    if best is None:
        return ""
    split = run.job_id == "simulate_job" and run.sites_root and re.search(r"[\s'\"\\#]", str(run.sites_root))
    if OTHER_CODE.search(best.text):
        return f"{best}; {OTHER_CODE_REMEDY}"
    started = "child process" in best.text or "run_client_thread" in best.text or ARGUMENTS.search(best.text)
    return f"{best}; {BLANK_REMEDY}" if started and (split or PATH.search(best.text)) else str(best)


def lack_of_resources(run: Run, sites: list[str]) -> str:
    """A full disk, or no memory, if a log tells of one: what other errors say of it is rarely clear; else empty."""
    best = _best(run, sites)
    return str(best) if best is not None and best.rank == RESOURCE else ""


def _best(run: Run, sites: list[str]) -> Cause | None:
    found = [cause for log in logs(run, sites) for cause in _candidates(log)]
    return min(found, default=None)


def logs(run: Run, sites: list[str]) -> Iterator[Path]:
    """The logs of a job that are on this machine."""
    sites = [site for site in sites if is_name(site)]
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


def _candidates(log: Path) -> Iterator[Cause]:
    """The tracebacks, of a chain of exceptions each in its order, and the error lines without one."""
    time, place, inside, count = "9", "", False, 0
    with log.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(COLOUR.sub("", line.rstrip("\n")) for line in lines):
            stamp, cause = TIME.match(line.lstrip("[")), None
            time = stamp.group() if stamp else time
            if line.strip().endswith(START):
                inside, place = True, ""
            elif inside and (frame := FRAME.match(line)):
                place = _place(frame["file"], frame["line"])
            elif inside and line.strip() and not line.startswith(" "):
                inside = False
                text = line.strip().removeprefix("custom.errors.")
                cause = Cause(_rank(text, REAL), time, number, text + (f", raised in {place}" if place else ""), log)
            elif " ERROR " in line or " CRITICAL " in line or "- ERROR -" in line:
                cause = Cause(_rank(line, ERROR_LINE), time, number, line.strip(), log)
            elif ARGUMENTS.search(line):
                cause = Cause(REAL, time, number, line.strip(), log)
            if cause is not None:
                yield replace(cause, text=printable(cause.text))
                count += 1
                if count == MOST:
                    return


def _rank(text: str, otherwise: int) -> int:
    if RESOURCES.search(text):
        return RESOURCE
    return CONSEQUENCE if CONSEQUENCES.search(text) else otherwise


def _place(file: str, line: str) -> str:
    """`custom/executors/trainer.py line 80`; the job's own code is where the reader can do something."""
    parts = Path(file).parts
    own = [index for index, part in enumerate(parts) if part in ("custom", "controllers")]
    return f"{'/'.join(parts[own[-1] :])} line {line}" if own else f"{Path(file).name} line {line}"
