# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The table of benchmarks/endurance.py."""

from __future__ import annotations

from typing import Any

from benchmarks.results.tables import met, table


def endurance(result: dict[str, Any]) -> str:
    """Memory and open files at the first sample and at the last, and who took part."""
    first, last = result["samples"][0], result["samples"][-1]
    growth, target = result["growth"], result["target_growth"]
    rows = [
        [
            name,
            f"{first['megabytes'][name]:.0f}",
            f"{last['megabytes'][name]:.0f}",
            f"{100 * growth['megabytes'][name]:+.1f} % ({met(growth['megabytes'][name] <= target)})",
            str(first["files"][name]),
            str(last["files"][name]),
            str(result["took_part"].get(name, "")),
        ]
        for name in first["megabytes"]
    ]
    head = ["all processes of", f"memory at round {first['round']} (MB)", f"at round {last['round']} (MB)"]
    head += [f"growth, target at most {100 * target:g} %", "open files", "at the end", "rounds it took part in"]
    stopped = f"every {result['every']} rounds another site is stopped for {result['stopped_s']:g} s"
    sizes = [f"{found['run_bytes'] / 1e6:.1f} MB" for found in (last, first)]
    about = f"{result['rounds']} rounds of hello-pt in {result['seconds'] / 60:.0f} min, mutual TLS; {stopped}. "
    about += f"The server's run folder holds {sizes[0]} at the end, {sizes[1]} at round {first['round']}."
    return "\n".join([table(head, rows), about + "\n"])
