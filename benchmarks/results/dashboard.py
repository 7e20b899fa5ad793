# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Section about the dashboard: its pages, its delay, and what its process needs."""

from __future__ import annotations

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
    loads = len(next(iter(result["pages"].values()))["cold_s"])
    head = [f"page ready, {result['jobs']} jobs in the store", f"median of {loads}", "worst", "target", ""]
    return table(head, rows)


def _watched(result: dict[str, Any]) -> str:
    targets, rows = result["targets"], []
    for browsers, entry in result["watched"].items():
        median, worst = statistics.median(entry["delays_s"]), max(entry["delays_s"])
        cpu, memory = entry["cpu_share"], entry["rss_mb"]
        good = worst < targets["round_s"] and memory < targets["rss_mb"]
        if browsers == "1":
            good = good and cpu < targets["cpu_share"]
        rows.append(
            [browsers, f"{median:.2f} s", f"{worst:.2f} s", f"{100 * cpu:.1f} %", f"{memory:.0f} MB", met(good)]
        )
    limits = ["target", "", f"under {targets['round_s']:g} s", f"under {100 * targets['cpu_share']:g} % for one"]
    rows.append([*limits, f"under {targets['rss_mb']:g} MB", ""])
    head = ["browsers", "a round is on screen after (median)", "worst", "of one core", "memory of the dashboard", ""]
    entry = next(iter(result["watched"].values()))
    return table(head, rows) + (
        f"\nWhile mnist trains at two sites of the same machine, {entry['rounds']} rounds of {entry['round_s']:.1f} s "
        "each; the browsers run on it too.\n"
    )
