# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Tables of benchmarks/startup.py and benchmarks/peers.py."""

from __future__ import annotations

from typing import Any

from benchmarks.results.tables import met, table


def startup(result: dict[str, Any]) -> str:
    """A row a quantity: median and range, beside those of the other checkout."""
    names = {
        "wall_s": "command, wall",
        "cpu_s": "command, processor",
        "to_prompt_s": "last event to the prompt, wall",
        "round_s": "a round, wall",
    }
    before = f"at {result['before']}" if "before" in result else "before"
    rows = []
    for key, title in names.items():
        now, target = result["medians"]["now"][key], result["targets"][key]
        earlier = result["medians"].get("before", {}).get(key)
        relative = key in ("wall_s", "round_s")
        value = now / earlier if relative and earlier else now
        verdict = [f"at most {target:g}{'x' if relative else ' s'}", met(value <= target)]
        verdict = verdict if earlier or not relative else ["", ""]
        ratio = f"{now / earlier:.2f}x" if earlier else ""
        rows.append([title, _spans(result, "now", key), _spans(result, "before", key), ratio, *verdict])
    runs = len(result["runs"]["now"])
    text = table(["seconds: median (range)", "now", before, "ratio", "target", ""], rows)
    return text + f"\nhello-pt on embedded digits, 2 sites, 5 rounds, with the report as a page; {runs} runs in turn.\n"


def _spans(result: dict[str, Any], name: str, key: str) -> str:
    values = sorted(run[key] for run in result["runs"].get(name, []))
    return f"{result['medians'][name][key]:.2f} ({values[0]:.2f} to {values[-1]:.2f})" if values else ""


def peers(result: dict[str, Any]) -> str:
    """A row a way."""
    ours = result["medians"]["bundle run"]
    rows = []
    for name, row in result["medians"].items():
        walls, rounds = (sorted(run[key] for run in result["runs"][name]) for key in ("wall_s", "round_s"))
        cells = [f"{row['wall_s']:.1f} ({walls[0]:.1f} to {walls[-1]:.1f})", f"{row['wall_s'] / ours['wall_s']:.2f}x"]
        cells += [f"{row['round_s']:.2f} ({rounds[0]:.2f} to {rounds[-1]:.2f})"]
        cells += [f"{row['round_s'] / ours['round_s']:.2f}x"]
        rows.append([name, *cells])
    head = ["seconds: median (range)", "whole", "of bundle run", "a round", "of bundle run"]
    flower, ray = result["flower"]
    about = (
        f"LeNet on embedded digits, {result['sites']} sites, {result['rounds']} rounds of an epoch, every site scoring "
        f"what it receives; {len(result['runs']['bundle run'])} runs in turn. Flower {flower} with Ray {ray}: its own "
        "defaults, and one processor and one thread a site. FLARE's own simulator has its default intervals."
    )
    return table(head, rows) + f"\n{about}\n"
