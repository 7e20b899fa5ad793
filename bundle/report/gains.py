# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Plots of the accuracy on writers that no training saw: by rounds of training, and what each writer gained."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from bundle.report.drawing import BLUE, GREEN, GREY, svg
from bundle.report.held_out import WORDS
from bundle.report.writers import Writers, accuracy

RED, SLATE, INK = "#b91c1c", "#64748b", "#1e293b"
COLOURS = {"initial": BLUE, "personalized": GREEN}
BIN_WIDTHS = (1, 2, 5, 10)  # percentage points
MOST_BINS = 30


def curve(writers: Writers, starts: Sequence[tuple[int, str]]) -> str:
    """SVG of the mean accuracy before and after personalising, by rounds of training.

    Args:
        writers: with at least one point.
        starts: of the tasks, as in `Report.task_starts`.
    """

    def draw(figure: Any, axes: Any) -> None:
        x = [point.round for point in writers.curve]
        for when, word in WORDS.items():
            y = [accuracy(point, when) for point in writers.curve]
            axes.plot(x, y, color=COLOURS[when], linewidth=2.2, marker="o", markersize=4, label=word)
        if writers.target is not None:
            axes.axhline(writers.target, color=SLATE, linewidth=1.2, linestyle="-.", label=f"target {writers.target:g}")
        mark_tasks(axes, starts)
        axes.set_xlabel("rounds of training (0: initial model)")
        axes.set_ylabel("mean accuracy")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.12)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=3, columnspacing=1.2, handlelength=1.4)

    return svg(draw, "accuracy on held-out writers by rounds of training")


def mark_tasks(axes: Any, starts: Sequence[tuple[int, str]], *, at_top: bool = False) -> None:
    """A line where another task takes over, with its name; nothing for a single task. See `Report.task_starts`."""
    for begin, task in starts[1:]:
        axes.axvline(begin, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
        axes.annotate(
            task,
            (begin, int(at_top)),
            xycoords=("data", "axes fraction"),
            xytext=(4, -4 if at_top else 4),
            textcoords="offset points",
            rotation=90,
            va="top" if at_top else "bottom",
            fontsize=9,
            color=SLATE,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            parse_math=False,
        )


def histogram(gains: Sequence[float]) -> str:
    """SVG of how many writers gained how much accuracy; no bar holds both losses and gains.

    Args:
        gains: of each writer, as a share of 1; at least one.
    """
    values = [round(100 * gain, 6) for gain in gains]
    width = next((w for w in BIN_WIDTHS if (max(values) - min(values)) / w <= MOST_BINS), BIN_WIDTHS[-1])
    edges = [width * n for n in range(math.floor(min(values) / width), math.floor(max(values) / width) + 2)]
    mean = statistics.fmean(values)
    harmed, others = [value for value in values if value < 0], [value for value in values if value >= 0]

    def draw(figure: Any, axes: Any) -> None:
        for group, colour, label in ((harmed, RED, "harmed"), (others, GREEN, "not harmed")):
            if group:
                axes.hist(group, edges, color=colour, edgecolor="white", linewidth=0.8, label=f"{label} ({len(group)})")
        axes.axvline(mean, color=INK, linewidth=1.6, linestyle="--", label=f"mean {mean:+.1f}")
        axes.set_xlabel("gain in accuracy (percentage points)")
        axes.set_ylabel("writers")
        axes.grid(axis="x", visible=False)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=3, columnspacing=1.2, handlelength=1.4)

    return svg(draw, "gain of each held-out writer")
