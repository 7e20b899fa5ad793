# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The charts' options, and that names in them stay text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bundle.report.model import Report, Round, Score
from bundle.report.writers import Point, Writers
from dashboard import charts
from dashboard.chart_style import COLOURS, MARKERS

HTML = "<img src=x onerror=alert(1)>"
COLON = ":formatter"  # NiceGUI would run what stands under such a key


def row(number: int, sites: dict[str, float], mean: float, **more: Any) -> Round:
    scores = {site: {"val_accuracy": value, "val_loss": 1 - value} for site, value in sites.items()}
    aggregate = {"val_accuracy": mean, "val_loss": 1 - mean}
    return Round(sites=scores, aggregate=aggregate, round=number, position=number, num_rounds=4, **more)


@pytest.fixture
def report() -> Report:
    """Two of four rounds; the second has no score yet."""
    unscored = Round(round=2, position=2, num_rounds=4, upload_bytes=1_500_000, download_bytes=500_000)
    return Report(
        job="mnist",
        site_names=["site-1", "site-2"],
        num_rounds=4,
        initial=Score({"site-1": {"val_accuracy": 0.125}}, {"val_accuracy": 0.125}),
        rounds=[row(1, {"site-1": 0.5, "site-2": 0.75}, 0.625, upload_bytes=2_000_000), unscored],
        cross_site={
            "SRV_FL_global_model.pt": {"site-1": {"test_accuracy": 0.9}, "site-2": {"test_accuracy": 0.6}},
            "site-1": {"site-1": {"test_accuracy": 0.95, "test_auc": 0.5}},
        },
    )


def series(options: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one["data"] for one in options["series"]}


def test_curves_start_at_the_initial_model_and_leave_out_what_is_not_known(report: Report) -> None:
    options = charts.curves(report, "val_accuracy")
    assert series(options) == {
        "all sites": [[0, 0.125], [1, 0.625]],
        "site-1": [[0, 0.125], [1, 0.5]],
        "site-2": [[1, 0.75]],
    }
    assert options["xAxis"]["max"] == 4  # as planned, so that the curve grows into the chart


def test_lines_differ_by_marker_as_well_as_by_colour(report: Report) -> None:
    assert len(set(COLOURS)) == len(COLOURS) == len(set(MARKERS)) == len(MARKERS)
    lines = charts.curves(report, "val_accuracy")["series"]
    assert len({line["symbol"] for line in lines}) == 3
    assert len({line["itemStyle"]["color"] for line in lines}) == 3


def test_many_sites_are_a_band_without_a_legend_each() -> None:
    many = Report(rounds=[row(1, {f"site-{n}": n / 40 for n in range(30)}, 0.5)])
    options = charts.curves(many, "val_accuracy")
    assert len(options["series"]) == 31
    assert options["legend"]["data"] == ["all sites"]


@pytest.mark.parametrize(("highest", "top"), [(0.97, 1), (0.5, None), (3.0, None)])
def test_a_share_near_one_is_drawn_up_to_one(highest: float, top: int | None) -> None:
    options = charts.curves(Report(rounds=[row(1, {"site-1": highest}, highest)]), "val_accuracy")
    assert options["yAxis"].get("max") == top


def test_no_infinity_goes_to_the_browser() -> None:
    """JSON has none, and a loss may be."""
    options = charts.curves(Report(rounds=[row(1, {"site-1": float("inf")}, float("nan"))]), "val_accuracy")
    assert series(options) == {"all sites": [], "site-1": []}


def test_traffic_in_the_unit_of_the_largest(report: Report) -> None:
    options = charts.traffic(report)
    assert series(options) == {"up, from the sites": [2.0, 1.5], "down, to the sites": [0.0, 0.5]}
    assert options["yAxis"]["name"] == "MB"


def test_heat_map_has_a_cell_for_each_known_pair(report: Report) -> None:
    options = charts.heat_map(report, "test_accuracy")
    cells = options["series"][0]["data"]
    assert [cell["value"] for cell in cells] == [[0, 0, 0.9], [1, 0, 0.6], [0, 1, 0.95]]
    assert options["xAxis"]["data"] == ["site-1", "site-2"]
    assert options["yAxis"]["data"] == ["global, last round", "site-1, its own"]
    shades = [cell["itemStyle"]["color"] for cell in cells]
    assert shades[2] == "rgb(120,170,40)"  # the highest
    assert shades[1] == "rgb(247,254,231)"  # the lowest
    assert len(charts.heat_map(report, "test_auc")["series"][0]["data"]) == 1


def test_scores_that_are_close_look_close(report: Report) -> None:
    report.cross_site = {"site-1": {"site-1": {"test_accuracy": 0.914}, "site-2": {"test_accuracy": 0.910}}}
    cells = charts.heat_map(report, "test_accuracy")["series"][0]["data"]
    reds = [int(cell["itemStyle"]["color"][4:].split(",")[0]) for cell in cells]
    assert abs(reds[0] - reds[1]) < 5


def test_gains_say_their_sign() -> None:
    bars = charts.gains([("site-1", 5.84), ("site-2", -1.0)], "gains")["series"][0]["data"]
    assert [bar["label"]["formatter"] for bar in bars] == ["+5.8", "-1.0"]
    assert [bar["label"]["position"] for bar in bars] == ["right", "left"]
    assert bars[0]["itemStyle"] != bars[1]["itemStyle"]


def test_comparison_has_a_line_a_job(report: Report) -> None:
    other = Report(rounds=[row(n, {}, n / 10) for n in (1, 2, 3)])
    options = charts.comparison([("a", report), ("b", other)], "val_accuracy")
    assert series(options) == {"a": [[0, 0.125], [1, 0.625]], "b": [[1, 0.1], [2, 0.2], [3, 0.3]]}
    assert options["xAxis"]["max"] == 3


def test_held_out_marks_where_another_task_takes_over() -> None:
    rounds = [Round(task=task, round=n, position=p) for task, n, p in (("train", 1, 1), ("meta_train", 1, 2))]
    points = [Point("train", 1, 20, 0.5, 0.6), Point("meta_train", 2, 20, 0.4, 0.8)]
    options = charts.held_out(Report(rounds=rounds, writers=Writers(points, {})))
    assert series(options) == {"as it is": [[1, 0.5], [2, 0.4]], "personalised": [[1, 0.6], [2, 0.8]]}
    assert options["series"][1]["markLine"]["data"] == [{"xAxis": 1, "name": "meta_train"}]


def test_metrics_begin_with_the_key_metric_and_end_with_losses(report: Report) -> None:
    report.rounds[0].aggregate |= {"val_auc": 0.5}
    assert charts.metrics(report) == ["val_accuracy", "val_auc", "val_loss"]


@pytest.mark.parametrize("name", [HTML, COLON, "${alert(1)}"])
def test_names_are_values_and_never_keys_or_html(name: str) -> None:
    hostile = Report(
        num_rounds=1,
        rounds=[Round(sites={name: {name: 0.5}}, aggregate={name: 0.5}, task=name, round=1, position=1)],
        cross_site={name: {name: {name: 0.5}}},
    )
    for options in (
        charts.curves(hostile, name),
        charts.comparison([(name, hostile)], name),
        charts.heat_map(hostile, name),
        charts.gains([(name, 1.0)], name),
        charts.traffic(hostile),
        charts.held_out(hostile),
    ):
        keys = list(_keys(options))
        assert name not in keys
        assert not any(key.startswith(":") for key in keys)
        assert options["tooltip"]["renderMode"] == "richText"
        json.dumps(options, allow_nan=False)


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for inner in value.values() for key in _keys(inner))]
    return [key for inner in value for key in _keys(inner)] if isinstance(value, list) else []
