# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from custom.metric_ranges import LARGEST, MOST_METRICS, fault, finite, limits
from custom.metrics import HIGHER_IS_BETTER, LOWER_IS_BETTER, lower_is_better
from tests.hostile import EVIL, LONG, READABLE

INF = LARGEST


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("val_accuracy", 0, 1),
        ("balancedaccuracy", 0, 1),
        ("top5_acc", 0, 1),
        ("val_auc", 0, 1),
        ("roc_auc_score", 0, 1),
        ("sensitivity", 0, 1),
        ("specificity", 0, 1),
        ("F1_macro", 0, 1),
        ("dice", 0, 1),
        ("dice_loss", 0, INF),
        ("fpr", 0, 1),
        ("val_accuracy_percent", 0, 100),
        ("dice_pct", 0, 100),
        ("kappa", -1, 1),
        ("mcc", -1, 1),
        ("r2", -INF, 1),
        ("val_loss", 0, INF),
        ("rmse", 0, INF),
        ("mape_percent", 0, INF),
        ("nll", -INF, INF),
        ("neg_mse", -INF, INF),
        ("accuracy_gain", -INF, INF),
        ("log_loss_difference", -INF, INF),
        ("val_objective", -INF, INF),
        ("mean_error", -INF, INF),
        ("val_positives", 0, INF),
        ("dropped_writers", 0, INF),
    ],
)
def test_what_a_name_allows(name: str, low: float, high: float) -> None:
    assert limits(name) == (low, high)
    assert fault({name: low}) is None
    assert fault({name: high}) is None
    for outside in (low - max(1e-3, abs(low)), high + max(1e-3, abs(high))):
        assert fault({name: outside}) is not None


def test_every_metric_whose_direction_is_known_has_a_range_or_is_free_on_purpose() -> None:
    free = {"psnr", "likelihood", "bleu", "rouge", "error", "errors", "err", "nll", "deviance", "divergence"}
    ranged = {name for name in (*HIGHER_IS_BETTER, *LOWER_IS_BETTER) if limits(name) != (-INF, INF)}
    assert {*HIGHER_IS_BETTER, *LOWER_IS_BETTER} - ranged == free


@pytest.mark.parametrize("value", [0, 1, 0.5, 1 + 1e-7, -1e-7, np.float32(0.1), np.int64(1), Fraction(1, 3)])
def test_shares_of_one(value: Any) -> None:
    assert fault({"val_accuracy": value}) is None


BAD: list[Any] = [math.nan, math.inf, -math.inf, -0.1, 1.001, 3.0, 1e308, -1e308, 10**400, Fraction(10**400, 3), True]
BAD += [np.float16("inf"), np.float32("nan"), np.bool_(True), None, "0.9", "<b>", [0.5], {"a": 0.5}, b"1", 1j]


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_what_is_no_share_of_one(value: Any) -> None:
    found = fault({"val_accuracy": value})
    assert found is not None
    assert found.key == "metric val_accuracy"
    assert found.expected == "a finite number from 0 to 1"


@pytest.mark.parametrize(
    "name", [5, None, ("a",), 0.5, b"a", "", "x" * 101, LONG, EVIL, "a\nb"], ids=lambda n: repr(n)[:20]
)
def test_what_is_no_name(name: Any) -> None:
    found = fault({"val_accuracy": 0.5, name: 0.5})
    assert found is not None
    assert found.key.isprintable()
    assert len(found.key) < 120


@pytest.mark.parametrize("label", ["mnist", READABLE, "", True, False])
def test_labels_are_no_numbers_and_do_no_harm(label: Any) -> None:
    assert fault({"data": label}) is None
    assert fault({"val_loss": label}) is not None


@pytest.mark.parametrize("label", [EVIL, LONG, None, []], ids=lambda n: repr(n)[:20])
def test_but_not_any_label(label: Any) -> None:
    assert fault({"data": label}) is not None


def test_not_more_than_a_hundred() -> None:
    assert fault({f"m{n}": 1 for n in range(MOST_METRICS)}) is None
    assert fault({f"m{n}": 1 for n in range(MOST_METRICS + 1)}) is not None


def test_who_reports_percent_is_told_the_name_and_the_name_works() -> None:
    found = fault({"val_accuracy": 93.5})
    assert found is not None
    assert "val_accuracy_percent" in found.remedy
    assert fault({"val_accuracy_percent": 93.5}) is None
    assert lower_is_better("val_accuracy_percent") is False
    negative = fault({"val_loss": -3.0})
    assert negative is not None
    assert "val_objective" in negative.remedy
    assert fault({"val_objective": -3.0}) is None


def test_the_largest_number_is_that_of_float32() -> None:
    assert float(np.finfo(np.float32).max) == LARGEST
    assert finite(10**400) is None
    assert finite(10**300) == 1e300
