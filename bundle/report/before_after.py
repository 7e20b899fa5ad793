# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The plot of each site's model before and after personalising."""

from __future__ import annotations

from typing import Any

from bundle.report.drawing import BLUE, GREEN, GREY, svg
from bundle.report.personal import KINDS, METRIC, accuracy, kinds

RED = "#b91c1c"
INCHES_WIDE, INCHES_PER_SITE, INCHES_AROUND = 10.4, 0.3, 1.0
SMALLEST_SPAN = 0.1  # of the axis, else half a point looks like a triumph
# The global model is a ring round the personal one where fine-tuning kept epoch 0.
MARKERS: dict[str, dict[str, Any]] = {
    "local_only": {"marker": "D", "s": 34, "color": GREY},
    "global": {"marker": "o", "s": 90, "facecolors": "white", "edgecolors": BLUE, "linewidths": 1.8},
    "personal": {"marker": "o", "s": 42, "color": GREEN},
}


def before_after(personalization: dict[str, Any]) -> str:
    """SVG with a row a site: dots for each kind of model, and a line from the global to the personal one."""
    sites = personalization["sites"]
    rows = {site: {kind: accuracy(row, kind) for kind in KINDS} for site, row in sites.items()}

    def draw(figure: Any, axes: Any) -> None:
        for y, row in enumerate(rows.values()):
            _join(axes, y, row)
        for kind in kinds(personalization):
            points = [(value, y) for y, row in enumerate(rows.values()) if (value := row[kind]) is not None]
            x, y_values = [point[0] for point in points], [point[1] for point in points]
            axes.scatter(x, y_values, label=KINDS[kind], zorder=3, clip_on=False, **MARKERS[kind])
        _set_axes(axes, rows)

    size = (INCHES_WIDE, INCHES_AROUND + INCHES_PER_SITE * len(rows))
    return svg(draw, f"{METRIC} at each site before and after personalising", size=size)


def _join(axes: Any, y: int, row: dict[str, float | None]) -> None:
    known = [value for value in row.values() if value is not None]
    if known:
        axes.hlines(y, min(known), max(known), color=GREY, linewidth=1, zorder=1)
    before, after = row["global"], row["personal"]
    if before is not None and after is not None:
        axes.hlines(y, before, after, color=GREEN if after >= before else RED, linewidth=2.4, zorder=2)


def _set_axes(axes: Any, rows: dict[str, dict[str, float | None]]) -> None:
    known = [value for row in rows.values() for value in row.values() if value is not None] or [0.0]
    low, high = min(known), max(known)
    spare = max(0.0, SMALLEST_SPAN - (high - low)) / 2 + 0.03 * (high - low)
    axes.set_xlim(max(0.0, low - spare), min(1.0, high + spare))
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first site on top
    axes.set_yticks(range(len(rows)), list(rows), parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(METRIC)
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), columnspacing=1.6)
