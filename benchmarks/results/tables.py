# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Tables, numbers and verdicts, as all sections write them."""

from __future__ import annotations

import statistics
from typing import Any


def spread(values: list[float], digits: int = 1) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def met(good: bool) -> str:
    """The word for a table."""
    return "met" if good else "**missed**"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def made_on(result: dict[str, Any]) -> str:
    """One line about the machine."""
    machine = result["machine"]
    parts = [machine["accelerator"] or machine["processor"], f"{machine['cores']} cores", f"torch {machine['torch']}"]
    return f"Measured on {machine['date']}: {', '.join(parts)}.\n"
