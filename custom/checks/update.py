# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Is one site's update fit to be aggregated? Pure functions over numpy arrays; no FLARE, no state.

An update is a WEIGHT_DIFF: for every floating-point tensor of the global model, what the site's training added to it.
Integer tensors (BatchNorm's `num_batches_tracked`) are never sent; their declared fate: the server's value stays.
An empty update with weight 0 means "nothing to contribute" and is accepted.

This is not a defence against a site that poisons the model with plausible numbers; that takes robust aggregation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from custom.errors import BundleError
from custom.metric_ranges import fault
from custom.printable import shown

Tensors = Mapping[str, NDArray[Any]]
SAME_MODEL = "is the model the same at every site?"
STATISTICS = re.compile(r"(^|\.)running_(mean|var)$")  # of BatchNorm
VARIANCE = "running_var"
ROUNDING = 1e-2  # of a variance and its change: float16 has three digits


def is_statistic(name: str) -> bool:
    """Is the tensor a running statistic of BatchNorm? Statistics are measured on data, and no step of training.

    Their scale is that of the activations, so in a distance over all tensors they would outweigh the weights.
    """
    return STATISTICS.search(name) is not None


class Origin(NamedTuple):
    """Whose update it is: the site's name and the round, counted from 1 (FLARE counts from 0)."""

    site: str
    round_number: int | None = None


class UpdateRejected(BundleError):
    """An update that must not be aggregated.

    Args:
        reason: one word for programs: `no_model`, `kind`, `stale_round`, `duplicate`, `resent`, `weight`, `no_data`,
            `missing_key`, `extra_key`, `dtype`, `shape`, `not_finite`, `norm`, `statistics` or `metrics`.
        origin: whose update it is.
        problem: what is wrong, in a few words; its code is `update-REASON`.
        details: BundleError's `key`, `expected`, `got` and `remedy`.
    """

    def __init__(self, reason: str, origin: Origin, problem: str = "", **details: Any) -> None:
        code = f"update-{reason.replace('_', '-')}"
        super().__init__(problem, code=code, site=origin.site, round_number=origin.round_number, **details)
        self.reason = reason


def check_update(
    update: Tensors, weight: float, model: Tensors, origin: Origin, *, allow_partial: bool = False
) -> None:
    """Compares an update with the global model: keys, dtypes, shapes, finite values.

    Args:
        update: tensor name to difference, in the dtype and shape of the model's tensor.
        weight: the update's weight, as `check_weight` returned it.
        model: the global model, all tensors.
        origin: whose update it is.
        allow_partial: whether some of the model's tensors may be absent.

    Raises:
        UpdateRejected: at the first difference, in the model's order of tensors.
    """
    if not update and weight == 0:
        return
    if not update:
        raise UpdateRejected(
            "no_data", origin, f"an empty update with weight {weight:g}", remedy="was training skipped?"
        )
    if weight == 0:
        raise UpdateRejected("weight", origin, "weight 0, but the update holds tensors", remedy="was the data empty?")
    expected = {key: value for key, value in model.items() if np.issubdtype(value.dtype, np.floating)}
    for key in update:
        if key not in expected:
            problem = "an integer tensor, which stays as it is at the server" if key in model else "no such tensor"
            raise UpdateRejected("extra_key", origin, problem, key=shown(key), remedy=SAME_MODEL)
    for key, value in expected.items():
        if key in update:
            _check_tensor(key, update[key], value, origin)
        elif not allow_partial:
            raise UpdateRejected("missing_key", origin, "missing from the update", key=key, remedy=SAME_MODEL)


def _check_tensor(key: str, got: Any, expected: NDArray[Any], origin: Origin) -> None:
    # The difference of two 0-dimensional arrays is a numpy scalar (np.generic), not an array.
    if not isinstance(got, np.ndarray | np.generic):
        raise UpdateRejected("dtype", origin, key=key, expected="a numpy array", got=type(got).__name__)
    if got.dtype != expected.dtype:
        raise UpdateRejected("dtype", origin, key=key, expected=expected.dtype, got=got.dtype, remedy=SAME_MODEL)
    if got.shape != expected.shape:
        raise UpdateRejected("shape", origin, key=key, expected=expected.shape, got=got.shape, remedy=SAME_MODEL)
    bad = got.size - int(np.count_nonzero(np.isfinite(got)))
    if bad:
        problem = f"{bad} of {got.size} values are NaN or infinite"
        raise UpdateRejected(
            "not_finite", origin, problem, key=key, remedy="did training diverge there? Its log has the loss"
        )


def check_variances(update: Tensors, model: Tensors, origin: Origin) -> None:
    """Refuses a running variance that would be negative: no data have one, and BatchNorm makes NaN of it.

    Args:
        update: as in `check_update`, or the values of a sparse one, whose statistics are whole.
        model: the global model.
        origin: whose update it is.

    Raises:
        UpdateRejected: names the tensor.
    """
    for name, change in update.items():
        if is_statistic(name) and name.endswith(VARIANCE) and change.size == model[name].size:
            before, added = (np.ravel(value).astype(np.float64) for value in (model[name], change))
            negative = int(np.count_nonzero(before + added < -ROUNDING * (np.abs(before) + np.abs(added))))
            if negative:
                problem = f"{negative} of {change.size} variances would be negative"
                remedy = "does a privacy filter add noise to running statistics? Then exclude them from it"
                raise UpdateRejected("statistics", origin, problem, key=name, remedy=remedy)


def l2_norm(update: Tensors, *, statistics: bool = False) -> float:
    """Euclidean norm over all weights together, or over all running statistics, computed in float64."""
    flat = (np.ravel(value) for name, value in update.items() if is_statistic(name) == statistics)
    # einsum converts as it goes, where float64 copies of the tensors would take three times as long.
    return math.sqrt(math.fsum(float(np.einsum("j,j->", vector, vector, dtype=np.float64)) for vector in flat))


def check_norm(norm: float, origin: Origin) -> None:
    """Raises UpdateRejected if the norm of an update of finite values overflows float64."""
    if not math.isfinite(norm):
        raise UpdateRejected("norm", origin, key="update norm", expected="a finite number", got=f"{norm:.4g}")


def check_weight(weight: Any, origin: Origin, *, max_weight: float = 1e9) -> float:
    """Returns the weight (number of training samples) as a float in [0, max_weight].

    Raises:
        UpdateRejected: if it is anything else; a bool is not a number of samples.
    """
    if isinstance(weight, bool) or not is_finite_number(weight) or not 0 <= weight <= max_weight:
        expected = f"a number from 0 to {max_weight:g}"
        remedy = "it is the number of samples trained on, or of writers (NUM_STEPS_CURRENT_ROUND)"
        raise UpdateRejected("weight", origin, key="weight", expected=expected, got=shown(weight), remedy=remedy)
    return float(weight)


def check_metrics(metrics: Any, origin: Origin) -> None:
    """Checks one number, or a dictionary of numbers and labels, or None where a site sent no metrics.

    Raises:
        UpdateRejected: a name or a value is not as `custom.metrics.fault` says.
    """
    named = metrics if isinstance(metrics, dict) else {} if metrics is None else {"initial_metrics": metrics}
    if found := fault(named):
        raise UpdateRejected("metrics", origin, **found._asdict())


def check_round(contribution_round: Any, current_round: int, origin: Origin) -> None:
    """Refuses an update that was trained on another round's model. Both rounds count from 0, as FLARE's do.

    Raises:
        UpdateRejected: if they differ.
    """
    known = isinstance(contribution_round, int) and abs(contribution_round) < 10**9
    if not known or contribution_round != current_round:
        got = f"round {contribution_round + 1}" if known else shown(contribution_round)
        remedy = "the site answered too late; is train_timeout long enough?" if known else ""
        expected = f"round {current_round + 1}"
        raise UpdateRejected("stale_round", origin, key="trained on", expected=expected, got=got, remedy=remedy)


def is_finite_number(value: Any) -> bool:
    """Whether `value` is a real number (a bool counts as 0 or 1) that float64 can hold."""
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False
