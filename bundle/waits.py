# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Shorter waits in modules of FLARE. Imports nothing of the bundle: programs load it by its path."""

from __future__ import annotations

import time
from types import ModuleType, SimpleNamespace

LONGEST_S = 0.02


def without_waits(*modules: ModuleType) -> None:
    """From now on what sleeps in these modules, between two looks at something, sleeps LONGEST_S at most."""
    quick = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: time.sleep(min(seconds, LONGEST_S))})
    for module in modules:
        module.time = quick  # type: ignore[attr-defined]
