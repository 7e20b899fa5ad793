# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Checks of numbers that are settings."""

from __future__ import annotations

import math

from custom.errors import BundleError


def check_counts(**counts: int) -> None:
    """Raises BundleError, which names the argument, if one is not an integer of at least 1."""
    for key, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BundleError(code="setting-value", key=key, expected="an integer of at least 1", got=repr(value))


def check_rates(**rates: float) -> None:
    """Raises BundleError, which names the argument, if one is not a finite number of at least 0."""
    for key, value in rates.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise BundleError(code="setting-value", key=key, expected="a finite number of at least 0", got=repr(value))
