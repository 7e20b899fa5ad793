# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Section about the dashboard: its pages, its delay, and what its process needs."""

from __future__ import annotations

import math
import statistics
from typing import Any

from benchmarks.results.tables import met, table


def dashboard(result: dict[str, Any]) -> str:
    """A table of pages, and one of a job that is watched."""
    return _pages(result) + "\n" + _watched(result)


def _pages(result: dict[str, Any]) -> str:
    target = result["targets"]["page_s"]
    rows = []
    for name, seconds in result["pages"].items():
        for kind, values in seconds.items():
            median = statistics.median(values)
            label = f"{name}, {'empty' if kind == 'cold_s' else 'filled'} cache"
            rows.append([label, f"{median:.2f} s", f"{max(values):.2f} s", f"under {target:g} s", met(median < target)])
    if launches := result.get("launch_s"):
        median, most = statistics.median(launches), result["targets"]["launch_s"]
        label = f"launch, click to submitted, median of {len(launches)}"
        rows.append([label, f"{median:.2f} s", f"{max(launches):.2f} s", f"at most {most:g} s", met(median <= most)])
    loads = len(next(iter(result["pages"].values()))["cold_s"])
    head = [f"page ready, {result['jobs']} jobs in the store", f"median of {loads}", "worst", "target", ""]
    return table(head, rows)


def _watched(result: dict[str, Any]) -> str:
    targets, rows = result["targets"], []
    for browsers, entry in result["watched"].items():
        delays, cpu, memory = entry["delays_s"], entry["cpu_share"], entry["rss_mb"]
        good = max(delays) < targets["round_s"] and memory < targets["rss_mb"]
        if browsers == "1":
            good = good and cpu < targets["cpu_share"]
        seen = [f"{value:.2f} s" for value in (statistics.median(delays), quantile(delays), max(delays))]
        rows.append([browsers, *seen, f"{100 * cpu:.1f} %", f"{memory:.0f} MB", met(good)])
    limits = [f"under {targets['round_s']:g} s", f"under {100 * targets['cpu_share']:g} % for one"]
    rows.append(["target", "", "", *limits, f"under {targets['rss_mb']:g} MB", ""])
    head = ["browsers", "a round is on screen after (median)", "95 %", "worst", "of a core", "memory", ""]
    entry = next(iter(result["watched"].values()))
    return table(head, rows) + (
        f"\nWhile mnist trains at two sites of the same machine, in rounds of {entry['round_s']:.1f} s. Processor time "
        "and memory are those of the dashboard's process; the browsers run on that machine, too.\n"
    )


def quantile(values: list[float], share: float = 0.95) -> float:
    """The smallest of them that is not below that share of them."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]
