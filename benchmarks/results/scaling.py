# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The table of benchmarks/scaling.py, and what follows from it for many sites on a slow line."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.results.tables import table

# On paper: a model like BERT-base at many sites, whose updates all pass the server's line.
SITES, LINE_MBIT_S = 100, 100.0
KEPT = (0.1, 0.01)


def scaling(result: dict[str, Any]) -> str:
    """A row a job, and the arithmetic for 100 sites."""
    rows = [
        [
            f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] < 1e6 else f"{row['parameters'] / 1e6:.0f} M",
            str(row["sites"]),
            str(row["threads"]),
            f"{row['round_s']:.1f}",
            f"{row['server_mb']:.0f}",
            f"{row['site_mb']:.0f}",
            f"{row['total_mb'] / 1000:.1f}" if "total_mb" in row else "",
            f"{row['upload_bytes'] / 1e6:.1f}",
            f"{row['download_bytes'] / 1e6:.1f}",
            f"{row['checkpoint_bytes'] / 1e6:.1f}",
        ]
        for row in result["rows"]
    ]
    head = ["parameters", "sites", "threads", "a round (s)", "server (MB)", "a site (MB)"]
    head += ["all (GB)", "up (MB)", "down (MB)", "checkpoint (MB)"]
    about = (
        f"hello-pt, one batch of training a round, {result['rounds']} rounds, the median of those after the first. The "
        "server's process is the simulator's too, and holds a client of each site. What processes share counts once in "
        "all of them together, and by its share in each."
    )
    return "\n".join([table(head, rows), about + "\n", _on_paper(result)])


def _on_paper(result: dict[str, Any]) -> str:
    largest = max(result["rows"], key=lambda row: row["parameters"])
    dense = largest["parameters"] * 4
    rows = [["dense", *_line(dense, dense)]]
    for kept in KEPT:
        changed = 1 - (1 - kept) ** SITES
        rows.append([f"keep {kept:g}", *_line(dense * _share(kept), dense * min(1.0, _share(changed)))])
    head = [f"{SITES} sites, {largest['parameters'] / 1e6:.0f} M parameters", "up, a site (MB)", "down, a site (MB)"]
    head += [f"up and down through {LINE_MBIT_S:g} Mbit/s (min)", "updates in the server's memory (GB)"]
    note = (
        "By arithmetic, not measured. The server's line carries everything, up and down one after the other. Sparse "
        "down: what has changed at all, if the sites choose independently of each other. Bytes of sparse updates are "
        "the bound, which the wire format keeps to within 0.3 % (see the section on bytes)."
    )
    return "\n".join([table(head, rows), note + "\n"])


def _share(kept: float) -> float:
    """Bytes of a sparse update by those of a dense one: four for each value, and log2 of the choices for the places."""
    entropy = -sum(share * math.log2(share) for share in (kept, 1 - kept) if share > 0)
    return kept + entropy / 32


def _line(up: float, down: float) -> list[str]:
    minutes = SITES * (up + down) * 8 / (LINE_MBIT_S * 1e6) / 60
    return [f"{up / 1e6:.1f}", f"{down / 1e6:.1f}", f"{minutes:.1f}", f"{SITES * up / 1e9:.1f}"]
