# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a site's metric weighs, by hand."""

from __future__ import annotations

import pytest

from custom.metrics import TRIMMED_MEAN, is_count, lower_is_better, selection_score, weight, weighted_mean

# Site a finds 9 of 10 ill and 1 of 2 well; b finds 1 of 2 ill and 30 of 40 well; c has nobody ill.
SITES = {
    "a": {"val_sensitivity": 0.9, "val_specificity": 0.5, "val_auc": 1.0, "val_positives": 10, "val_negatives": 2},
    "b": {"val_sensitivity": 0.5, "val_specificity": 0.75, "val_auc": 0.6, "val_positives": 2, "val_negatives": 40},
    "c": {"val_specificity": 1.0, "val_positives": 0, "val_negatives": 8},
}
SAMPLES = {"a": 100.0, "b": 100.0, "c": 100.0}


def test_pooled_by_hand() -> None:
    """10 of 12 ill and 39 of 50 well are found; of 20 + 80 pairs within sites, 20 + 48 are in the right order."""
    expected = {"val_sensitivity": 10 / 12, "val_specificity": 39 / 50, "val_auc": 68 / 100}
    assert weighted_mean(SITES, SAMPLES) == pytest.approx(expected | {"val_positives": 12, "val_negatives": 50})


def test_other_metrics_weigh_samples() -> None:
    assert weight("val_accuracy", SITES["a"], 7) == 7
    assert weight("test_auc", SITES["a"], 7) == 7  # no test_positives
    assert weight("auc", {"_positives": 2.0, "_negatives": 3.0}, 7) == 6


@pytest.mark.parametrize(("name", "expected"), [("val_positives", True), ("negatives", True), ("val_auc", False)])
def test_counts(name: str, expected: bool) -> None:
    assert is_count(name) is expected


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("val_accuracy", False),
        ("val_auc", False),
        ("test_sensitivity", False),
        ("val_f1", False),
        ("val_F1_macro", False),
        ("val_balanced_accuracy", False),
        ("val_brier_score", True),
        ("val_brier_skill_score", False),
        ("val_crps_score", False),
        ("val_score", False),
        ("val_negative_log_likelihood", True),
        ("false_negative_error", True),
        ("neg_score", None),
        ("top5_acc", False),
        ("val_loss", True),
        ("train_logloss", True),
        ("cross_entropy", True),
        ("error_rate", True),
        ("val_mae", True),
        ("RMSE", True),
        ("perplexity", True),
        ("neg_val_loss", False),
        ("negative_class_loss", True),
        ("val_dice", False),  # "ce" is in it
        ("dice_loss", True),
        ("val_mystery", None),
        ("", None),
    ],
)
def test_direction(name: str, lower: bool | None) -> None:
    assert lower_is_better(name) is lower


@pytest.mark.parametrize(
    ("values", "score", "rule"),
    [
        ([0.9, 0.5], 0.6, ""),  # (0.9 + 3 * 0.5) / 4, weighted
        ([0.9, 0.5, 0.1], 0.5, TRIMMED_MEAN),
        ([0.9, 0.5, 0.1, 0.3], 0.4, TRIMMED_MEAN),
        ([1.0, 0.2, 0.4, 0.6, 0.0], 0.4, TRIMMED_MEAN),
        ([1.0, 1.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.0, 0.0], 0.35, TRIMMED_MEAN),  # two of ten at either end
    ],
)
def test_the_best_model_is_chosen_without_the_extremes(values, score, rule):
    metrics = {f"site-{n}": {"x": value} for n, value in enumerate(values)}
    weights = {f"site-{n}": [1.0, 3.0, 1e9][min(n, 2)] for n in range(len(values))}
    assert selection_score("x", metrics, weights) == (pytest.approx(score), rule)


def test_there_is_no_score_of_a_metric_that_nobody_reports():
    assert selection_score("x", {"site-1": {"y": 1.0}}, {}) is None
