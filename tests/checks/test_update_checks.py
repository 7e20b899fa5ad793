# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The pure update checks; expected values are computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from custom.checks.update import (
    Origin,
    UpdateRejected,
    check_metrics,
    check_norm,
    check_round,
    check_update,
    check_weight,
    l2_norm,
)
from custom.errors import BundleError

HERE = Origin("site-2", 7)
MODEL = {
    "conv1.weight": np.zeros((6, 3, 5, 5), np.float32),
    "scale": np.zeros((), np.float32),
    "bn.num_batches_tracked": np.array(4, np.int64),
}


def good() -> dict:
    return {"conv1.weight": np.ones((6, 3, 5, 5), np.float32), "scale": np.float32(0.5)}


def refused(reason: str, *args, check=check_update, **kwargs) -> str:
    with pytest.raises(UpdateRejected) as caught:
        check(*args, **kwargs)
    assert isinstance(caught.value, BundleError)
    assert caught.value.reason == reason
    return str(caught.value)


def test_a_good_update_may_hold_numpy_scalars_and_leaves_integers_out():
    check_update(good(), 10.0, MODEL, HERE)


def test_the_message_names_site_round_tensor_shapes_and_remedy():
    update = good() | {"conv1.weight": np.ones((6, 1, 5, 5), np.float32)}
    assert refused("shape", update, 1.0, MODEL, HERE) == (
        "site-2 round 7 conv1.weight: expected (6, 3, 5, 5), got (6, 1, 5, 5); is the model the same at every site?"
    )


def test_missing_and_extra_tensors():
    update = good()
    del update["scale"]
    assert "round 7 scale: missing from the update" in refused("missing_key", update, 1.0, MODEL, HERE)
    check_update(update, 1.0, MODEL, HERE, allow_partial=True)
    for extra in ("conv9.weight", "evil\nname", 3):
        message = refused("extra_key", good() | {extra: np.zeros(1, np.float32)}, 1.0, MODEL, HERE)
        assert "no such tensor" in message
        assert "\n" not in message
    counter = {"bn.num_batches_tracked": np.array(1, np.int64)}
    message = refused("extra_key", good() | counter, 1.0, MODEL, HERE, allow_partial=True)
    assert "an integer tensor, which stays as it is at the server" in message


@pytest.mark.parametrize("value", [np.float64(0.5), np.array(1, np.int32), 0.5, [0.5], None, np.array(None)])
def test_dtype(value):
    refused("dtype", good() | {"scale": value}, 1.0, MODEL, HERE)
    refused("dtype", {"w": value}, 1.0, {"w": np.zeros((), np.float16)}, HERE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad):
    update = good()
    update["conv1.weight"][0, 0, 0, 1:3] = bad
    assert "2 of 450 values are NaN or infinite" in refused("not_finite", update, 1.0, MODEL, HERE)


def test_empty_updates():
    check_update({}, 0.0, MODEL, HERE)
    refused("no_data", {}, 1.0, MODEL, HERE)
    refused("no_data", {}, 1.0, MODEL, HERE, allow_partial=True)
    refused("weight", good(), 0.0, MODEL, HERE)


def test_the_norm_is_over_all_tensors_and_in_float64():
    # 3^2 + 4^2 + 12^2 = 13^2; in float32, 1e30^2 would overflow.
    assert l2_norm({"a": np.array([[3.0, 4.0]], np.float32), "b": np.array(12.0)}) == 13.0
    assert l2_norm({"a": np.array([3e30, 4e30], np.float32)}) == pytest.approx(5e30, rel=1e-6)
    assert l2_norm({}) == 0.0


def test_a_norm_must_be_finite():
    check_norm(1e300, HERE)
    assert "site-2 round 7 update norm: expected a finite number, got inf" in refused(
        "norm", math.inf, HERE, check=check_norm
    )


@pytest.mark.parametrize(
    "weight",
    [None, True, "10", math.nan, math.inf, -1, -1e-9, 1e9 + 1, 10**400, 1j, np.array([1.0]), np.float32("nan")],
)
def test_bad_weights(weight):
    assert "site-2 round 7 weight: expected a number from 0 to 1e+09" in refused(
        "weight", weight, HERE, check=check_weight
    )


@pytest.mark.parametrize("weight", [0, 450, 450.5, np.int64(450), np.float32(450), 1e9])
def test_good_weights(weight):
    assert check_weight(weight, HERE) == float(weight)
    assert type(check_weight(weight, HERE)) is float


@pytest.mark.parametrize(
    "metrics", [None, 0.5, {}, {"val_accuracy": 0.5, "data": "mnist", "done": True, "n": np.int64(3)}]
)
def test_good_metrics(metrics):
    check_metrics(metrics, HERE)


@pytest.mark.parametrize(
    "metrics",
    [math.nan, {"val_loss": math.inf}, {"a": 1.0, "b": np.float32("nan")}, {"a": None}, {"a": {"b": 1.0}}, [1.0]],
)
def test_bad_metrics(metrics):
    assert "expected a finite number" in refused("metrics", metrics, HERE, check=check_metrics)


def test_a_stale_round_is_shown_as_people_count():
    check_round(6, 6, HERE)
    message = refused("stale_round", 5, 6, HERE, check=check_round)
    assert message.startswith("site-2 round 7 trained on: expected round 7, got round 6; the site answered too late")
    refused("stale_round", None, 6, HERE, check=check_round)
    refused("stale_round", 6.0, 6, HERE, check=check_round)
