# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Makes a file or folder once, however many processes ask at the same time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

LOCK_TIMEOUT_S = 3600.0  # another process is at it


def make_once(target: Path, make: Callable[[Path], Path]) -> None:
    """Makes sure that `target` exists, whole.

    Args:
        target: a file or folder; what is there already is left alone, also on a disk where no lock could be made.
        make: called at most once, with an empty folder beside `target`; returns that folder, or what in it is to be
            moved into place. Whatever else it leaves there is removed, also when it fails.

    Raises:
        OSError: no room, or no permission.
        filelock.Timeout: another process has held the lock for an hour.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock"), timeout=LOCK_TIMEOUT_S):
        if target.exists():
            return
        work = target.with_name(f".{target.name}.part")
        shutil.rmtree(work, ignore_errors=True)  # of a process that was killed; the lock is ours
        try:
            work.mkdir()
            make(work).replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
