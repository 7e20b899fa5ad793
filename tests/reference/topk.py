# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Selection of the k best entries by sorting everything, entry by entry, in plain Python."""

from __future__ import annotations

import numpy as np


def best(scores: dict[str, np.ndarray], keep_fraction: float, scope: str) -> dict[str, list[int]]:
    """Flat indices of the highest scores; ties by name, then by index. Scores must not be NaN."""
    entries = [(-float(s), name, i) for name in scores for i, s in enumerate(scores[name].ravel())]
    groups = [entries] if scope == "model" else [[e for e in entries if e[1] == name] for name in scores]
    kept: dict[str, list[int]] = {name: [] for name in scores}
    for group in groups:
        k = max(1, round(keep_fraction * len(group))) if group else 0
        for _, name, index in sorted(group)[:k]:
            kept[name].append(index)
    return {name: sorted(indices) for name, indices in kept.items()}
