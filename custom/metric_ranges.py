# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which values a metric can have. A site's score is a claim: what it cannot be, such as an accuracy of 3, is refused.

The name says what it can be, by the last known word in it: `val_accuracy` is a share of 1, `val_accuracy_percent` one
of 100. A metric without a known word may be any number that float32 holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

from custom.metrics import WRITERS, is_count, is_one_of, words_of
from custom.printable import LONGEST_NAME, is_label, shown

LARGEST = 3.4028234663852886e38  # of float32, in which losses are computed; sums of such numbers are finite in float64
RANGES: tuple[tuple[float, float, tuple[str, ...]], ...] = (
    (0.0, 1.0, ("accuracy", "acc", "auc", "auroc", "auprc", "sensitivity", "specificity", "precision", "recall")),
    (0.0, 1.0, ("f1", "dice", "iou", "jaccard", "ap", "map", "ppv", "npv", "tpr", "tnr", "fpr", "fnr", "ece")),
    (-1.0, 1.0, ("kappa", "mcc", "ssim", "correlation")),
    (-LARGEST, 1.0, ("r2", "skill")),
    (0.0, LARGEST, ("loss", "losses", "mae", "mse", "rmse", "mape", "bce", "ce", "entropy", "perplexity", "ppl")),
    (0.0, LARGEST, ("wer", "cer", "brier", "distance")),
    (-LARGEST, LARGEST, ("error", "errors", "err", "nll", "deviance", "divergence", "likelihood")),
)
# Words of what is no value of the metric itself: `accuracy_gain` may be negative.
DERIVED = {"change", "delta", "diff", "difference", "gain", "gap", "drop", "improvement", "log", "logit", "sum", "neg"}
PERCENT = {"percent", "percentage", "pct"}
ROUNDING = 1e-6  # of a mean in float32, relative to the upper limit
MOST_METRICS = 100  # of a site
MOST_SAMPLES = 1e9  # of a site


class Fault(NamedTuple):
    """What is wrong with a site's metrics, as BundleError has it."""

    key: str
    expected: str
    got: str
    remedy: str = ""


def limits(name: str) -> tuple[float, float]:
    """The lowest and the highest value that a metric of this name can have, as far as its name says."""
    words = words_of(name)
    known = [limit for limit in map(_range, words) if limit is not None]
    if is_count(name) or name in WRITERS:
        return 0.0, LARGEST
    if not known or DERIVED.intersection(words):
        return -LARGEST, LARGEST
    low, high = known[-1]
    scale = 100.0 if PERCENT.intersection(words) else 1.0
    return tuple(limit if abs(limit) == LARGEST else scale * limit for limit in (low, high))  # type: ignore[return-value]


def _range(word: str) -> tuple[float, float] | None:
    return next(((low, high) for low, high, known in RANGES if is_one_of(word, known)), None)


def fault(metrics: Mapping[Any, Any]) -> Fault | None:
    """The first thing that is wrong with what a site reports, or None.

    A name is a printable text of at most 100 characters, and there are at most 100. A value is a finite number within
    `limits`; where these do not say more than that it is a number, a label (a printable text, true or false) will do.
    """
    if len(metrics) > MOST_METRICS:
        return Fault("metrics", f"at most {MOST_METRICS}", str(len(metrics)), "leave some out")
    for name, value in metrics.items():
        key = f"metric {shown(name)}"
        if not is_label(name):
            got = f"{len(name)} characters" if isinstance(name, str) else type(name).__name__
            return Fault(key, f"a name of 1 to {LONGEST_NAME} printable characters", got, "name it so at this site")
        low, high = limits(name)
        if (low, high) == (-LARGEST, LARGEST) and (isinstance(value, bool) or is_label(value) or value == ""):
            continue
        number = None if isinstance(value, bool) else finite(value)
        slack = ROUNDING * high if high != LARGEST else 0.0
        if number is None or not low - slack <= number <= high + slack:
            return Fault(key, _expected(low, high), shown(value), _remedy(name, value, low, high))
    return None


def finite(value: Any) -> float | None:
    """A real number as a float, if it is finite; a bool is 0 or 1."""
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:  # an integer beyond float64
        return None
    return number if math.isfinite(number) else None


def _expected(low: float, high: float) -> str:
    bounds = ("" if low == -LARGEST else f" from {low:g}") + ("" if high == LARGEST else f" to {high:g}")
    return f"a finite number{bounds}"


def _remedy(name: str, value: Any, low: float, high: float) -> str:
    number = None if isinstance(value, bool) else finite(value)
    if number is None:
        return "did training diverge there? Its log has the loss" if isinstance(value, Real) else ""
    if (low, high) == (0.0, 1.0) and 1 < number <= 100:
        return f"report it as a share of 1, or name it {name}_percent, in the job's key_metric too"
    return "give what is not such a metric another name, such as val_objective, in the job's key_metric too"
