# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Ctrl-C, a plain `kill`, and a closed terminal: none of them may leave FLARE's processes behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SOON_S = 0.5  # enough for a module of those
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts_call(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Each of INTERRUPTS calls `handler` meanwhile; not SIGHUP where it is ignored, as under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    heard = [number for number in INTERRUPTS if number != signal.SIGHUP or not ignored]
    previous = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


def raise_keyboard_interrupt(number: int, frame: FrameType | None) -> None:
    """The handler that makes each of them what Ctrl-C is.

    Soon, where a module is being imported: some extension modules print a panic and a trace if an exception comes then.
    """
    if _imports(frame) and number != signal.SIGALRM:
        signal.signal(signal.SIGALRM, raise_keyboard_interrupt)
        signal.setitimer(signal.ITIMER_REAL, SOON_S)
    else:
        raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def ignore_interrupts() -> None:
    """From now on: while processes are ended, an impatient second Ctrl-C must not leave half of them alive."""
    for number in (*INTERRUPTS, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
