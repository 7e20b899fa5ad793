# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How a process ended, in words. Imports nothing of the bundle: `simulator_process` loads it by its path."""

from __future__ import annotations

import signal
from contextlib import suppress

NOTES: dict[int, str] = {
    signal.SIGKILL: ", as when memory runs out",
    signal.SIGBUS: ", as when memory or /dev/shm runs out",
}


def killer(code: int) -> int:
    """The signal that ended a process; 0 if none did.

    Args:
        code: its exit code as `subprocess` gives it. FLARE's simulator ends with that of its server's process, so
            that -9 arrives here as 247; no signal has a number above 64.
    """
    if 256 - 64 <= code < 256:
        code -= 256
    return max(-code, 0)


def in_words(code: int) -> str:
    """`was killed by signal 9 (SIGKILL, as when memory runs out)`, or `ended with exit code 1`."""
    number = killer(code)
    if not number:
        return f"ended with exit code {code}"
    name = ""
    with suppress(ValueError):  # a real-time signal
        name = f" ({signal.Signals(number).name}{NOTES.get(number, '')})"
    return f"was killed by signal {number}{name}"
