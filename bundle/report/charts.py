# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Curves and heat map of a report, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bundle.report.drawing import BLUE, GREEN, GREY, SITE_COLOURS, Draw, svg
from bundle.report.gains import mark_tasks
from bundle.report.model import COUNTS, Report
from bundle.report.wording import model_name
from custom.metrics import is_count

SMALLEST_SPAN = 0.2  # of the heat map's colours
MOST_LABELLED_SITES = len(SITE_COLOURS)


def charts(report: Report) -> list[tuple[str, str]]:
    """Title and SVG of each chart that the report has data for."""
    found = []
    names = {name for row in report.rounds for name in row.aggregate if not is_count(name)} - set(COUNTS)
    key = report.key_metric()
    for metric in sorted(names, key=lambda name: (name != key, "accuracy" not in name, name)):
        found.append((f"{metric} by round", svg(_curve(report, metric), f"{metric} by round")))
    if report.rounds:
        found.append(("Bytes by round", svg(_bytes(report), "bytes by round")))
    for metric in report.cross_scores() if report.cross_site else ():
        found.append((f"{metric}: models at sites", svg(_matrix(report, metric), "cross-site matrix", grid=False)))
    return found


def _curve(report: Report, metric: str) -> Draw:
    start = [(0, report.initial)] if report.initial and metric in report.initial.aggregate else []
    scores = [*start, *((row.position, row) for row in report.rounds)]
    names = sorted({site for _, score in scores for site in score.sites})

    def draw(figure: Any, axes: Any) -> None:
        many = len(names) > MOST_LABELLED_SITES
        for index, name in enumerate(names):
            points = [(x, score.sites[name][metric]) for x, score in scores if metric in score.sites.get(name, {})]
            colour = GREY if many else SITE_COLOURS[index]
            label = (f"{len(names)} sites" if index == 0 else None) if many else name
            axes.plot(*_columns(points), color=colour, linewidth=1.3, marker="o", markersize=3, label=label, alpha=0.9)
        points = [(x, score.aggregate[metric]) for x, score in scores if metric in score.aggregate]
        axes.plot(*_columns(points), color=GREEN, linewidth=2.6, marker="o", markersize=5, label="all sites")
        axes.set_xlabel("round" + (" (0: initial model)" if start else ""))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.12)
        mark_tasks(axes, report.task_starts(), at_top=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=4, columnspacing=1.2, handlelength=1.4)

    return draw


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _bytes(report: Report) -> Draw:
    rounds = [row.position for row in report.rounds]
    scale, unit = next(
        ((s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if max(_both(report)) >= s), (1.0, "B")
    )

    def draw(figure: Any, axes: Any) -> None:
        up, down = (
            [getattr(row, name) / scale for row in report.rounds] for name in ("upload_bytes", "download_bytes")
        )
        axes.bar([x - 0.2 for x in rounds], up, 0.38, color=GREEN, label="up (from the sites)")
        axes.bar([x + 0.2 for x in rounds], down, 0.38, color=BLUE, label="down (to the sites)", alpha=0.75)
        axes.set_xlabel("round")
        axes.set_ylabel(unit)
        axes.grid(axis="x", visible=False)
        mark_tasks(axes, report.task_starts(), at_top=True)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2)

    return draw


def _both(report: Report) -> list[int]:
    return [count for row in report.rounds for count in (row.upload_bytes, row.download_bytes)]


def _matrix(report: Report, metric: str) -> Draw:
    sites = sorted({site for row in report.cross_site.values() for site in row})
    models = [model_name(report, model) for model in report.cross_site]
    values = [[row.get(site, {}).get(metric, float("nan")) for site in sites] for row in report.cross_site.values()]

    def draw(figure: Any, axes: Any) -> None:
        figure.set_size_inches(max(5.2, 2.4 + 0.9 * len(sites)), 1.2 + 0.55 * len(values))
        known = [value for row in values for value in row if value == value] or [0.0]
        low, high = min(known), max(known)
        spare = max(0.0, SMALLEST_SPAN - (high - low)) / 2  # else 0.910 and 0.914 look far apart
        image = axes.pcolormesh(
            values, cmap="YlGn", vmin=low - spare, vmax=high + spare, edgecolors="white", linewidth=2
        )
        axes.invert_yaxis()
        axes.set_xticks([x + 0.5 for x in range(len(sites))], sites, rotation=0 if len(sites) <= 6 else 60)
        axes.set_yticks([y + 0.5 for y in range(len(values))], models)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for y, row in enumerate(values) if len(sites) <= 12 else ():
            for x, value in enumerate(row):
                dark = image.norm(value) > 0.6
                axes.text(
                    x + 0.5,
                    y + 0.5,
                    "-" if value != value else f"{value:.3f}",
                    ha="center",
                    va="center",
                    color="white" if dark else "#1e293b",
                )
        if len(sites) > 12:
            figure.colorbar(image, ax=axes)

    return draw
