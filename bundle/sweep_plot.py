# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The metric of each point of a sweep against the bytes its sites sent: as PNG, and on a page with the table."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from itertools import product
from pathlib import Path
from typing import Any

from bundle.report import html
from bundle.report.drawing import BLUE, GREEN, GREY, STYLE, Draw, svg
from bundle.report.elements import paragraph, table
from bundle.report.wording import human_bytes
from bundle.sweep_grid import Point
from bundle.sweep_table import Row, best_line, notes, table_rows, tied
from custom.metrics import lower_is_better
from custom.progress import write_atomically

SIZE = (7.6, 4.6)
DECADE = 10.0
MOST_LABELS = 24  # beyond that only the points that no other one beats have a label
SMALLEST_SPAN = 0.2  # of the bytes, as a share of the largest
OFFSETS = [
    (x, y) for distance in (1, 2, 3) for y, x in product((0, distance, -distance), (1, -1, 0)) if (x, y) != (0, 0)
]
ALIGN = {1: "left", -1: "right", 0: "center"}
STEP = 8.0  # points between a marker and its label, and between two places for it


def write_png(path: Path, results: Sequence[Row], metric: str) -> None:
    """The plot as a picture."""
    import matplotlib as mpl  # slow to import
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        plot(results, metric)(figure, figure.add_subplot())
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=160)
    write_atomically(path, picture.getvalue())


def to_html(title: str, results: Sequence[Row], metric: str) -> str:
    """One page that needs nothing else."""
    style = Path(html.__file__).with_name("style.css").read_text(encoding="utf-8")
    header, *lines = table_rows(results, metric)
    best = tied(results, metric)
    classes = ["best" if row in best else "" for row in results]
    parts = [f"<header><h1>{escape(title)}</h1></header>", paragraph(best_line(results, metric))]
    if best:
        picture = svg(plot(results, metric), f"{metric} by bytes sent", size=SIZE)
        parts.append(f'<div class="card"><h3>{escape(metric)} by bytes sent</h3>\n{picture}</div>')
    parts.append(table(header, list(zip(classes, lines, strict=True))))
    parts += [paragraph(note) for note in notes(results, metric)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def plot(results: Sequence[Row], metric: str) -> Draw:
    """Draws the settings that have the metric, with bars of one standard deviation over seeds; the best are green."""
    shown = [
        (row.mean_of("upload_bytes") or 0.0, value, row) for row in results if (value := row.value(metric)) is not None
    ]
    best = tied(results, metric)

    def draw(figure: Any, axes: Any) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

        sizes = [x for x, _, _ in shown]
        front = unbeaten([(x, y) for x, y, _ in shown], bool(lower_is_better(metric)))
        axes.plot([x for x, _ in front], [y for _, y in front], color=GREY, linewidth=1.2, linestyle="--", zorder=1)
        axes.scatter(sizes, [y for _, y, _ in shown], color=BLUE, s=34, zorder=2)
        bars = [(x, y, std) for x, y, row in shown if (std := row.std(metric)) is not None]
        if bars:
            axes.errorbar(*zip(*bars, strict=True), fmt="none", ecolor=GREY, elinewidth=1.2, capsize=3, zorder=1)
        for x, y, row in shown:
            if row in best:
                axes.scatter(x, y, color=GREEN, s=90, zorder=3)
        axes.margins(0.12, 0.15)
        if is_wide(sizes):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        else:
            low, high = min(sizes), max(sizes)
            spare = max(0.12 * (high - low), (SMALLEST_SPAN * high - (high - low)) / 2) or 1.0
            axes.set_xlim(low - spare, high + spare)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: human_bytes(value)))
        axes.set_xlabel("sent by all sites in all rounds" + (" (log scale)" if is_wide(sizes) else ""))
        axes.set_ylabel(f"best {metric}")
        varying = [key for key in shown[0][2].settings if len({repr(row.settings[key]) for row in results}) > 1]
        labels = [
            (x, y, Point({key: row.settings[key] for key in varying}).label)
            for x, y, row in shown
            if len(shown) <= MOST_LABELS or (x, y) in front
        ]
        _label(figure, axes, labels, [(x, y) for x, y, _ in shown])

    return draw


def is_wide(sizes: Sequence[float]) -> bool:
    """Do they span more than a decade? Zero has no place on a log scale."""
    return min(sizes) > 0 and max(sizes) / min(sizes) > DECADE


def unbeaten(pairs: Sequence[tuple[float, float]], lower: bool) -> list[tuple[float, float]]:
    """The (bytes, value) that no other one beats at as few bytes, by bytes."""
    front: list[tuple[float, float]] = []
    for size, value in sorted(pairs, key=lambda pair: (pair[0], pair[1] if lower else -pair[1])):
        if not front or (value < front[-1][1] if lower else value > front[-1][1]):
            front.append((size, value))
    return front


def _label(
    figure: Any, axes: Any, labels: Sequence[tuple[float, float, str]], markers: Sequence[tuple[float, float]]
) -> None:
    """Writes each label where it covers the fewest markers and labels."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # places the axes
    half = 5 * figure.dpi / 72
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in axes.transData.transform(markers)]
    for x, y, text in labels:
        note = axes.annotate(text, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=8.5, color="#475569")
        note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        note.set_in_layout(False)  # or the axes would move
        costs = []
        for index, offset in enumerate(OFFSETS):
            _place(note, offset)
            box = note.get_window_extent()
            inside = figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            costs.append((sum(box.overlaps(other) for other in taken) + (0 if inside else 10), index))
        _place(note, OFFSETS[min(costs)[1]])
        taken.append(note.get_window_extent())


def _place(note: Any, offset: tuple[int, int]) -> None:
    x, y = offset
    note.set_position((STEP * x, STEP * y))
    side = (x > 0) - (x < 0)
    note.set_horizontalalignment(ALIGN[side])
    note.set_verticalalignment("center" if y == 0 else "bottom" if y > 0 else "top")
