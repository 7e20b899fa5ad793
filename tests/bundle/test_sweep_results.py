# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a sweep writes of its points: table, ranking and plot."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.report.model import Report, Round
from bundle.report.reading import build
from bundle.sweep_plot import is_wide, plot, to_html, unbeaten, write_png
from bundle.sweep_results import Result, choose_metric, ranked, to_csv, to_text
from tests.bundle.fine_tuned import shared
from tests.bundle.perfedavg import writers_events


def finished(size: int, value: float, **settings: object) -> Result:
    metrics = {"val_accuracy": {"best": value, "final": value}, "val_loss": {"best": value, "final": value}}
    return Result(settings or {"k": size}, "", "completed", "", metrics, "val_accuracy", size, 2 * size, 65.0)


def test_the_table_by_hand() -> None:
    results = [finished(1_000_000, 0.8, lr=0.1, p="iid"), finished(900, 0.9, lr=0.01, p="iid")]
    results.append(Result({"lr": 1.0, "p": "iid"}, status="failed", error="diverged"))
    order = ranked(results, "val_accuracy")
    assert to_text(order, "val_accuracy") == (
        "lr    p    status     best val_accuracy   final      up    down       time\n"
        "0.01  iid  completed             0.9000  0.9000   900 B  1.8 kB  1 min 5 s\n"
        "0.1   iid  completed             0.8000  0.8000  1.0 MB  2.0 MB  1 min 5 s\n"
        "1.0   iid  failed                     -       -       -       -          -\n"
        "\nbest: lr=0.01, p=iid  (val_accuracy 0.9000, 900 B up)\n"
        "\nfailed: lr=1.0, p=iid: diverged\n"
    )
    assert to_csv(order, "val_accuracy").splitlines()[3] == '1.0,iid,failed,,,0,0,,,0.0,,"lr=1.0,p=iid",diverged'
    assert [row.upload_bytes for row in ranked(results, "val_loss")] == [1_000_000, 900, 0]


def test_of_equal_points_the_one_that_sends_less_is_best() -> None:
    assert ranked([finished(9, 0.5), finished(3, 0.5)], "val_accuracy")[0].upload_bytes == 3


def test_best_and_final_of_a_report_that_selects_nothing() -> None:
    nan = float("nan")
    rounds = [Round(aggregate={"val_loss": loss}, upload_bytes=7) for loss in (0.5, 0.2, nan)]
    cross = {"SRV_FL_global_model.pt": {"a": {"test_accuracy": 0.5}, "b": {"test_accuracy": 0.9}}}
    report = Report(rounds=rounds, cross_site=cross, status="completed", samples={"a": {"test": 3}, "b": {"test": 1}})
    result = Result({"k": 1})
    result.fill(report)
    assert result.metrics["val_loss"] == {"best": 0.2}
    assert result.metrics["test_accuracy"] == {"best": pytest.approx(0.6), "final": pytest.approx(0.6)}
    assert (result.upload_bytes, result.key_metric) == (21, "val_loss")
    assert choose_metric([result], "") == "val_loss"


def test_personalised_accuracy_comes_first_where_there_are_held_out_writers() -> None:
    result = Result({"k": 1})
    result.fill(build(writers_events()))
    assert result.key_metric == "personalized_accuracy"
    assert result.metrics["personalized_accuracy"] == {"best": 0.6875, "final": 0.6875}
    assert result.metrics["initial_accuracy"] == {"best": 0.5625, "final": 0.5625}


def test_the_accuracy_of_personal_models_can_be_asked_for() -> None:
    result = Result({"k": 1})
    result.fill(shared())
    assert result.key_metric == "val_accuracy"
    assert result.metrics["personal_test_accuracy"] == {"best": 0.83, "final": 0.83}
    assert ranked([result], choose_metric([result], "personal_test_accuracy")) == [result]


def test_the_plot_has_a_log_scale_for_more_than_a_decade_and_labels_apart(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    assert is_wide([100, 1001])
    assert not is_wide([100, 1000])
    assert not is_wide([0, 1000])
    assert unbeaten([(1, 0.5), (2, 0.4), (3, 0.6), (3, 0.7)], lower=False) == [(1, 0.5), (3, 0.7)]
    results = ranked([finished(10**n, 0.5 + n / 20, keep_fraction=0.1**n) for n in range(3, 8)], "val_accuracy")
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    plot(results, "val_accuracy")(figure, axes)
    assert axes.get_xscale() == "log"
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    write_png(tmp_path / "plot.png", [finished(0, 0.5)], "val_accuracy")  # nothing was sent


def test_the_page_escapes_what_it_is_given() -> None:
    assert "<b>" not in to_html("<b>", [finished(5, 0.5, k="<b>")], "val_accuracy")
