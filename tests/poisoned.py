# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A pickle that runs code when it is loaded, so that a test can see whether it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Touch:
    """Creates a file when it is loaded without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)
