# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a sweep writes of its points: table, ranking and plot."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from bundle.report.model import Report, Round
from bundle.sweep_plot import is_wide, plot, to_html, unbeaten, write_png
from bundle.sweep_results import Result, choose_metric
from bundle.sweep_table import Row, group, notes, ranked, tied, to_csv, to_json, to_text
from tests.bundle.conftest import build
from tests.bundle.fine_tuned import shared
from tests.bundle.perfedavg import writers_events


def finished(size: int, value: float, **settings: object) -> Result:
    metrics = {"val_accuracy": {"best": value, "final": value}, "val_loss": {"best": value, "final": value}}
    return Result(settings or {"k": size}, "", "completed", "", metrics, "val_accuracy", size, 2 * size, 65.0)


def test_the_table_by_hand() -> None:
    results = [finished(1_000_000, 0.8, lr=0.1, p="iid"), finished(900, 0.9, lr=0.01, p="iid")]
    results.append(Result({"lr": 1.0, "p": "iid"}, status="failed", error="diverged"))
    order = ranked(group(results), "val_accuracy")
    assert to_text(order, "val_accuracy") == (
        "lr    p    status     best val_accuracy   final      up    down       time\n"
        "0.01  iid  completed             0.9000  0.9000   900 B  1.8 kB  1 min 5 s\n"
        "0.1   iid  completed             0.8000  0.8000  1.0 MB  2.0 MB  1 min 5 s\n"
        "1.0   iid  failed                     -       -       -       -          -\n"
        "\nbest: lr=0.01, p=iid  (val_accuracy 0.9000, 900 B up)\n"
        "\nfailed: lr=1.0, p=iid: diverged\n"
    )
    assert to_csv(order, "val_accuracy").splitlines()[3] == '1.0,iid,failed,,,0,0,,,0.0,,"lr=1.0,p=iid",diverged'
    assert [row.mean_of("upload_bytes") for row in ranked(group(results), "val_loss")] == [1_000_000, 900, 0]


def test_equal_points_are_tied_and_the_one_that_sends_less_comes_first() -> None:
    rows = ranked(group([finished(9, 0.5), finished(3, 0.5), finished(1, 0.4)]), "val_accuracy")
    assert [row.settings["k"] for row in rows] == [3, 9, 1]
    assert "tied: k=3 and k=9  (val_accuracy 0.5000; k=3 sent the fewest bytes)\n" in to_text(rows, "val_accuracy")
    written = to_json(rows, "val_accuracy")
    assert (written["best"], written["tied"]) == (None, [{"k": 3}, {"k": 9}])


def seeded(value: float | None, seed: int, **settings: object) -> Result:
    if value is None:
        return Result({**settings, "seed": seed}, status="failed", error="diverged")
    return finished(1000, value, **settings, seed=seed)


def repeats() -> list[Row]:
    """0.5, 0.7 and 0.6: mean 0.6, deviation 0.1; 0.62 and 0.7: mean 0.66, deviation 0.0566, without its third."""
    values = {0.1: (0.5, 0.7, 0.6), 0.2: (0.62, 0.7, None), 0.3: (0.55, 0.53, 0.54)}
    results = [seeded(value, seed, lr=lr) for lr, row in values.items() for seed, value in enumerate(row)]
    return ranked(group(results, ["seed"]), "val_accuracy")


def test_a_seed_is_a_repeat_and_no_setting() -> None:
    rows = repeats()
    assert [row.settings for row in rows] == [{"lr": 0.1}, {"lr": 0.3}, {"lr": 0.2}]
    assert (rows[0].value("val_accuracy"), rows[0].std("val_accuracy")) == (pytest.approx(0.6), pytest.approx(0.1))
    text = to_text(rows, "val_accuracy")
    assert "best: lr=0.1  (val_accuracy 0.6000 +- 0.1000 over 3 seeds, 1.0 kB up)" in text
    assert "lr=0.2: 2 of 3 repeats finished; ranked below those with all" in text
    assert "failed: lr=0.2, seed=2: diverged" in text
    row = next(csv.DictReader(io.StringIO(to_csv(rows, "val_accuracy"))))
    assert (row["lr"], row["seeds"], row["seeds_finished"]) == ("0.1", "3", "3")
    assert float(row["best_val_accuracy_std"]) == pytest.approx(0.1)
    assert "seed" not in row
    written = to_json(rows, "val_accuracy")
    assert (written["best"], len(written["rows"]), len(written["points"])) == ("lr=0.1", 3, 9)
    assert (written["rows"][2]["seeds"], written["rows"][2]["seeds_finished"]) == (3, 2)


def test_what_the_error_does_not_tell_apart_is_said() -> None:
    """0.60 and 0.54, deviations 0.1 and 0.01: error sqrt(0.01 / 3 + 0.0001 / 3) = 0.0580, difference 0.06."""
    (note,) = [note for note in notes(repeats(), "val_accuracy") if "standard errors" in note]
    assert "0.0600" in note
    assert "(0.0580)" in note
    apart = [seeded(value, seed, lr=lr) for lr, value in ((1, 0.9), (2, 0.5)) for seed in (0, 1)]
    assert not notes(ranked(group(apart, ["seed"]), "val_accuracy"), "val_accuracy")


def test_seeds_alone_are_one_row() -> None:
    rows = group([seeded(0.5, 0), seeded(0.7, 1)], ["seed"])
    assert len(rows) == 1
    assert "best: the job as it is  (val_accuracy 0.6000 +- 0.1414 over 2 seeds" in to_text(rows, "val_accuracy")
    assert "<svg" in to_html("job", rows, "val_accuracy")


def test_values_that_differ_by_rounding_are_equal() -> None:
    sums = [0.1 + 0.2, 0.3]
    assert len(tied(ranked(group([finished(n, v) for n, v in enumerate(sums)]), "val_accuracy"), "val_accuracy")) == 2


def test_a_metric_of_unknown_direction_is_said() -> None:
    result = Result({"k": 1}, "", "completed", "", {"mystery": {"best": 1.0, "final": 1.0}}, "mystery", 1, 1, 1.0)
    assert any("mystery" in note for note in notes(group([result]), "mystery"))


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


def test_personal_models_are_compared_on_validation_data_and_shown_on_test_data() -> None:
    """0.6, 0.8 and 0.7 on 10, 30 and 10 validation samples: (6 + 24 + 7) / 50 = 0.74."""
    report = shared()
    assert report.personalization is not None
    for number, (site, row) in enumerate(sorted(report.personalization["sites"].items())):
        row["personal"]["val_accuracy"] = (0.6, 0.8, 0.7)[number]
        report.samples.setdefault(site, {})["validation"] = (10, 30, 10)[number]
    result = Result({"k": 1})
    result.fill(report)
    assert result.key_metric == "personal_val_accuracy"
    assert result.metrics["personal_val_accuracy"]["best"] == pytest.approx(0.74)
    header, row = to_text(group([result]), "personal_val_accuracy").splitlines()[:2]
    assert "personal_test_accuracy" in header
    assert {"0.7400", "0.8300"} <= set(row.split())


def test_the_test_accuracy_of_personal_models_can_be_asked_for() -> None:
    result = Result({"k": 1})
    result.fill(shared())
    assert result.key_metric == "val_accuracy"  # an older job, without scores on validation data
    assert result.metrics["personal_test_accuracy"] == {"best": 0.83, "final": 0.83}
    assert choose_metric([result], "personal_test_accuracy") == "personal_test_accuracy"


def test_the_plot_has_a_log_scale_for_more_than_a_decade_and_labels_apart(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    assert is_wide([100, 1001])
    assert not is_wide([100, 1000])
    assert not is_wide([0, 1000])
    assert unbeaten([(1, 0.5), (2, 0.4), (3, 0.6), (3, 0.7)], lower=False) == [(1, 0.5), (3, 0.7)]
    points = [finished(10**n, 0.5 + n / 20, keep_fraction=0.1**n) for n in range(3, 8)]
    results = ranked(group(points), "val_accuracy")
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    plot(results, "val_accuracy")(figure, axes)
    assert axes.get_xscale() == "log"
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    write_png(tmp_path / "plot.png", group([finished(0, 0.5)]), "val_accuracy")  # nothing was sent


def test_the_page_escapes_what_it_is_given() -> None:
    assert "<b>" not in to_html("<b>", group([finished(5, 0.5, k="<b>")]), "val_accuracy")
