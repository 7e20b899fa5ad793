# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Processes that end with another. Imports nothing of the bundle: programs load it by its path."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """From now on the end of the parent is this process's own, and its own that of all that it forks; on Linux.

    Of the parent it is the thread that has started this process.

    Args:
        parent: process id. One that is not the parent any more has ended, and so does this process.
    """
    if sys.platform != "linux":
        return
    known = parent

    def follow() -> None:
        nonlocal known
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != known:
            os._exit(1)
        known = os.getpid()

    follow()
    os.register_at_fork(after_in_child=follow)
