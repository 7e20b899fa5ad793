# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which processes work in a folder: a lock for who starts a run there, and a mark on all that the run starts.

The mark is a variable of the environment. All descendants of a process inherit it, whoever starts them and however, so
that they are found when those between have ended.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from custom.errors import BundleError

LOCK = ".lock"
MARK = "FLARE_BUNDLE_RUN"  # process id of who started it, a blank, its workspace
PROGRAM = Path(__file__).with_name("simulator_process.py")
SIMULATORS = {str(PROGRAM), "simulator", "nvflare.private.fed.app.simulator.simulator"}  # ours, and FLARE's two


@contextmanager
def held(folder: Path, option: str) -> Iterator[None]:
    """The folder as ours alone, until the end of this process if not before. Makes it, and a file `.lock` in it.

    Where the file system knows no locks, as some of networks, nothing is locked.

    Raises:
        BundleError: another process holds it, or `.lock` is not a file of ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if not (folder / LOCK).is_symlink():
            raise
        raise _foreign(folder, option) from error
    try:
        facts = os.fstat(lock)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or facts.st_uid != os.geteuid():
            raise _foreign(folder, option)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise in_use(folder, option, users(folder)) from error
        except OSError:  # no locks here
            pass
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            error.filename = str(folder)  # a full disk names none
            raise
        if found := users(folder, lock=False):
            raise in_use(folder, option, found)
        yield
    finally:
        os.close(lock)


def _foreign(folder: Path, option: str) -> BundleError:
    problem = f"its {LOCK} is a link, or a file of somebody else"
    return BundleError(problem, code="workspace-unusable", key=f"{option} {folder}", remedy=f"choose another {option}")


def in_use(folder: Path, option: str, pids: list[int], code: str = "workspace-unusable") -> BundleError:
    """The error that names those who work there."""
    numbers = " ".join(map(str, pids))
    return BundleError(
        f"is in use by process {numbers or 'of unknown id'}",
        code=code,
        key=f"{option} {folder}",
        remedy="wait until it has ended" + (f", or end it: kill {numbers}" if pids else ""),
    )


def users(folder: Path, lock: bool = True) -> list[int]:
    """Ids of the processes of this machine that work in the folder or below; of a whole run only who started it.

    Args:
        folder: where.
        lock: look also who holds it.
    """
    holder = _holder(folder) if lock else None
    if holder is not None:
        return [holder]
    folder = folder.resolve()
    return sorted(one.pid for one in psutil.process_iter(["environ", "cmdline", "cwd"]) if _works_in(one, folder))


def marked(workspace: Path) -> list[psutil.Process]:
    """The processes of the run in that workspace, but for this one."""
    value = mark(workspace)
    processes = psutil.process_iter(["environ"])
    return [one for one in processes if (one.info["environ"] or {}).get(MARK) == value and one.pid != os.getpid()]


def mark(workspace: Path) -> str:
    """The value of MARK for what this process starts there."""
    return f"{os.getpid()} {workspace}"


def _holder(folder: Path) -> int | None:
    """Who has locked it; None if nobody has, or it is not told."""
    try:
        lock = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(lock, 20, 0)
        return int(text) if text.strip().isdigit() else None
    except OSError:  # no locks here
        pass
    finally:
        os.close(lock)
    return None


def _works_in(process: psutil.Process, folder: Path) -> bool:
    place = (process.info["environ"] or {}).get(MARK, "").partition(" ")[2]
    if place and process.pid != os.getpid() and Path(place).resolve().is_relative_to(folder):
        return True
    command = process.info["cmdline"] or ()
    if SIMULATORS.isdisjoint(command):
        return False
    return any(Path(process.info["cwd"] or "/", part).resolve() == folder for part in command)
