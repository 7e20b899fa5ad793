# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""ECharts options from reports: pure functions, without a function of JavaScript among their values.

Names of sites and jobs are only ever values that ECharts draws as SVG text: they are no keys (NiceGUI runs what stands
under a key that begins with a colon) and no HTML (tooltips are drawn as rich text).
"""

from __future__ import annotations

from collections.abc import Sequence

from bundle.report.model import Report
from bundle.report.wording import model_name
from custom.metrics import lower_is_better
from dashboard.chart_style import (
    ACCENT,
    BAD,
    COLOURS,
    DIGITS,
    SECOND,
    Options,
    axis,
    below,
    chart,
    line,
    named_rows,
    points,
    round_axes,
    thick,
)

GLOBAL = "all sites"
MANY = len(COLOURS)  # more sites than that are one grey band
LIGHT, DARK = (247, 254, 231), (120, 170, 40)  # the ends of the heat map's scale: dark text reads well on both
LABEL_PX = 48  # of a number right of a bar
SMALLEST_SPAN = 0.2  # of that scale, else 0.910 and 0.914 look far apart
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


def metrics(report: Report) -> list[str]:
    """What a curve can be drawn of, the most telling first."""
    key = report.key_metric()
    return sorted(report.metrics(), key=lambda name: (name != key, bool(lower_is_better(name)), name))


def curves(report: Report, metric: str) -> Options:
    """A metric after each round: of all sites together, thick, and of each site."""
    start = [(0, report.initial)] if report.initial else []
    scores = [*start, *((row.position, row) for row in report.rounds)]
    names = sorted({site for _, score in scores for site in score.sites})
    series = []
    for index, name in enumerate(names):
        known = points([(x, score.sites.get(name, {}).get(metric)) for x, score in scores])
        series.append(line(name, known, index, faint=len(names) > MANY))
    overall = thick(line(GLOBAL, points([(x, score.aggregate.get(metric)) for x, score in scores]), 0))
    overall["markLine"] = _task_marks(report)
    last = max([report.num_rounds, *(x for x, _ in scores)], default=0)
    lines, legend = [overall, *series], [GLOBAL, *(names if len(names) <= MANY else [])]
    return chart(lines, legend, f"{metric} after each round") | round_axes("round", last, lines)


def traffic(report: Report) -> Options:
    """Bytes of each round, up and down, as bars."""
    counts = [(row.upload_bytes, row.download_bytes) for row in report.rounds]
    largest = max((count for pair in counts for count in pair), default=0)
    scale, unit = next(((scale, unit) for scale, unit in UNITS if largest >= scale), UNITS[-1])
    names = {"up, from the sites": ACCENT, "down, to the sites": SECOND}
    series = [
        {
            "type": "bar",
            "name": name,
            "data": [round(pair[column] / scale, DIGITS) for pair in counts],
            "itemStyle": {"color": colour},
            "barMaxWidth": 18,
        }
        for column, (name, colour) in enumerate(names.items())
    ]
    rounds = [str(row.position) for row in report.rounds]
    drawn = chart(series, list(names), "bytes of each round")
    return drawn | {"xAxis": below("category", "round", data=rounds), "yAxis": axis("value", name=unit, nameGap=10)}


def comparison(labelled: Sequence[tuple[str, Report]], metric: str) -> Options:
    """A metric of all sites after each round, a line a job."""
    series = []
    for index, (label, report) in enumerate(labelled):
        start = [(0, report.initial.aggregate.get(metric))] if report.initial else []
        known = points([*start, *((row.position, row.aggregate.get(metric)) for row in report.rounds)])
        one = line(label, known, index)
        one["lineStyle"]["width"] = 2.5
        series.append(one)
    last = max((point[0] for one in series for point in one["data"]), default=0)
    legend = [label for label, _ in labelled]
    return chart(series, legend, f"{metric} after each round, by job") | round_axes("round", last, series)


def heat_map(report: Report, metric: str) -> Options:
    """A metric of each model (row) at each site (column). Each cell has its number, and colours of its own."""
    sites = sorted({site for row in report.cross_site.values() for site in row})
    values = {
        (x, y): row[site][metric]
        for y, row in enumerate(report.cross_site.values())
        for x, site in enumerate(sites)
        if metric in row.get(site, {})
    }
    low, high = min(values.values(), default=0.0), max(values.values(), default=1.0)
    spare = max(0.0, SMALLEST_SPAN - (high - low)) / 2
    cells = [_cell(place, value, low - spare, high + spare) for place, value in values.items()]
    series = {"type": "heatmap", "data": cells, "label": {"show": True}, "name": metric, "emphasis": {"disabled": True}}
    drawn = chart([series], [], f"{metric} of each model at each site")
    return drawn | {
        "tooltip": drawn["tooltip"] | {"trigger": "item"},
        "visualMap": {"show": False, "min": low - spare, "max": high + spare, "inRange": {"opacity": 1}},
        "xAxis": below("category", "site", data=sites, axisLabel={"overflow": "truncate"}),
        **named_rows([model_name(report, model) for model in report.cross_site]),
    }


def gains(rows: Sequence[tuple[str, float]], what: str) -> Options:
    """What each site gained, in percentage points, as bars to the left (lost) and right of zero.

    Args:
        rows: site and gain, the first on top.
        what: whose gain, for people who cannot see the chart.
    """
    bars = [
        {
            "value": round(gain, 2),
            "itemStyle": {"color": ACCENT if gain >= 0 else BAD},
            "label": {"position": "right" if gain >= 0 else "left", "formatter": f"{gain:+.1f}"},
        }
        for _, gain in rows
    ]
    label = {"show": True, "color": "var(--ink)"}
    drawn = chart([{"type": "bar", "name": "gain", "data": bars, "barMaxWidth": 22, "label": label}], [], what)
    value = below("value", "gain (percentage points)", boundaryGap=["12%", "12%"])
    placed = named_rows([site for site, _ in rows])
    placed["grid"]["right"] = LABEL_PX
    return drawn | {"xAxis": value, **placed}


def held_out(report: Report) -> Options:
    """Mean accuracy on writers that no training saw, before and after each has made the model its own."""
    curve = report.writers.curve if report.writers else []
    before = line("as it is", points([(point.round, point.initial_accuracy) for point in curve]), 0)
    after = thick(line("personalised", points([(point.round, point.personalized_accuracy) for point in curve]), 1))
    after["markLine"] = _task_marks(report)
    drawn = chart([before, after], ["as it is", "personalised"], "accuracy on held-out writers by rounds of training")
    last = max((point.round for point in curve), default=0)
    return drawn | round_axes("rounds of training", last, [before, after])


def _task_marks(report: Report) -> Options:
    """A line where another task takes over, with its name; see `Report.task_starts`."""
    marks = [{"xAxis": begin, "name": task} for begin, task in report.task_starts()[1:]]
    style = {"color": "var(--soft)", "type": "dashed"}
    label = {"formatter": "{b}", "color": "var(--soft)", "position": "insideEndTop"}
    return {"silent": True, "symbol": "none", "data": marks, "lineStyle": style, "label": label}


def _cell(place: tuple[int, int], value: float, low: float, high: float) -> Options:
    share = (value - low) / ((high - low) or 1.0)
    mixed = [round(light + share * (dark - light)) for light, dark in zip(LIGHT, DARK, strict=True)]
    return {
        "value": [*place, float(f"{value:.{DIGITS}g}")],
        "itemStyle": {"color": f"rgb({','.join(map(str, mixed))})", "borderColor": "var(--surface)", "borderWidth": 2},
        "label": {"formatter": f"{value:.3f}", "color": "#0f172a"},
    }
