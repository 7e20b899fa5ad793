# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The look of all charts. Colours of text and lines are CSS variables of style.css, so charts follow the theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Options = dict[str, Any]
Points = list[list[float]]  # (x, y)

ACCENT, SECOND, BAD = "var(--chart-global)", "#0284c7", "#dc2626"
# At least 3:1 on the white and on the dark surface; told apart by their markers, too.
COLOURS = ("#0284c7", "#ea580c", "#a855f7", "#0d9488", "#db2777", "#b45309", "#6366f1", "#64748b")
MARKERS = ("rect", "triangle", "diamond", "roundRect", "pin", "arrow", "emptyRect", "emptyTriangle")
MOST_MARKED = 40  # points of a line that still get a marker each
DIGITS = 4  # significant, of a value in a tooltip
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'  # that of style.css
SOFT = {"color": "var(--soft)", "fontSize": 12}
INK = {"color": "var(--ink)", "fontSize": 12}
LETTER_PX, WIDEST_NAME_PX = 7.2, 170.0
FULL = 0.9  # a share above that is shown up to 1


def chart(series: list[Options], legend: Sequence[str], description: str) -> Options:
    """What all charts have; `description` is for people who cannot see it."""
    return {
        "animation": False,
        "aria": {"enabled": True, "label": {"description": description}},
        "textStyle": {"fontFamily": FONT},
        "grid": {"left": 8, "right": 20, "top": 44 if legend else 10, "bottom": 26, "containLabel": True},
        "legend": {"data": list(legend), "type": "scroll", "top": 0, "left": 0, "textStyle": INK, "show": bool(legend)},
        "tooltip": {
            "trigger": "axis",
            "renderMode": "richText",  # as HTML, a name could be a script
            "confine": True,
            "backgroundColor": "var(--surface)",
            "borderColor": "var(--line)",
            "textStyle": INK,
            "axisPointer": {"lineStyle": {"color": "var(--soft)"}},
        },
        "series": series,
    }


def axis(kind: str, **more: Any) -> Options:
    """A vertical axis, or one without a name."""
    return {
        "type": kind,
        "axisLabel": SOFT | more.pop("axisLabel", {}),
        "splitLine": {"lineStyle": {"color": "var(--line)"}} | more.pop("splitLine", {}),
        "axisLine": {"lineStyle": {"color": "var(--line)"}},
        "nameTextStyle": SOFT,
        **more,
    }


def below(kind: str, name: str, **more: Any) -> Options:
    """A horizontal axis, with its name in the middle."""
    return axis(kind, name=name, nameLocation="middle", nameGap=26, splitLine={"show": False}, **more)


def round_axes(name: str, last: float, lines: Sequence[Options]) -> Options:
    """Of curves over rounds, from 0 to `last`."""
    value = axis("value", scale=True)
    highest = max((point[1] for line in lines for point in line["data"]), default=0.0)
    if FULL < highest <= 1:
        value["max"] = 1  # else the axis of a share may end at 1.2
    return {"xAxis": below("value", name, minInterval=1, min=0, max=max(last, 1)), "yAxis": value}


def named_rows(names: Sequence[str]) -> Options:
    """The vertical axis and the grid of a chart with a row a name; the names are as wide as they need to be."""
    width = min(WIDEST_NAME_PX, LETTER_PX * max(map(len, names), default=0))
    label = {"width": width, "overflow": "truncate"}
    grid = {"left": width + 12, "right": 20, "top": 8, "bottom": 44, "containLabel": False}
    return {"grid": grid, "yAxis": axis("category", data=list(names), inverse=True, axisLabel=label)}


def line(name: str, points: Points, index: int, faint: bool = False) -> Options:
    """One of several; each has its own colour and marker, unless it is only one of many."""
    shade = "var(--chart-faint)" if faint else COLOURS[index % len(COLOURS)]
    return {
        "type": "line",
        "name": name,
        "data": points,
        "symbol": "none" if faint else MARKERS[index % len(MARKERS)],
        "symbolSize": 7,
        "showSymbol": len(points) <= MOST_MARKED,
        "lineStyle": {"width": 1 if faint else 1.8, "color": shade},
        "itemStyle": {"color": shade},
        "emphasis": {"disabled": True},
    }


def thick(one: Options) -> Options:
    """The line that matters most, before all others."""
    strong = {"lineStyle": {"width": 3.5, "color": ACCENT}, "itemStyle": {"color": ACCENT}, "symbol": "circle", "z": 5}
    return one | strong


def points(pairs: Sequence[tuple[float, float | None]]) -> Points:
    """Those that are known and finite; JSON has no NaN."""
    return [[x, float(f"{y:.{DIGITS}g}")] for x, y in pairs if y is not None and abs(y) < float("inf")]
