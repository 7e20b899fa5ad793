# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Tables, numbers and verdicts, as all sections write them."""

from __future__ import annotations

import math
import statistics
from typing import Any


def spread(values: list[float], digits: int = 1) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def met(good: bool) -> str:
    """The word for a table."""
    return "met" if good else "**missed**"


def judged(value: float, target: float, error: float | None, *, at_most: bool = False) -> str:
    """`met` where the error leaves no doubt of it; a margin of less than two standard errors decides nothing.

    Args:
        value: what was measured.
        target: in the same unit.
        error: the standard error of `value`, in that unit; None if it is not known.
        at_most: is a small value good?
    """
    margin = target - value if at_most else value - target
    if error is None:
        return f"{met(margin >= 0)}, error not known"
    return met(margin >= 0) if abs(margin) >= 2 * error else f"not decided, standard error {error:.2f}"


def error_of_mean(values: list[float]) -> float | None:
    """Standard error over seeds; None of fewer than two."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def error_of_difference(first: list[float], second: list[float]) -> float | None:
    """Of the mean difference of values that belong to the same seeds, in their order."""
    if len(first) != len(second):
        return None
    return error_of_mean([a - b for a, b in zip(first, second, strict=True)])


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def made_on(result: dict[str, Any]) -> str:
    """One line about the machine."""
    machine = result["machine"]
    parts = [machine["accelerator"] or machine["processor"], f"{machine['cores']} cores", f"torch {machine['torch']}"]
    return f"Measured on {machine['date']}: {', '.join(parts)}.\n"
