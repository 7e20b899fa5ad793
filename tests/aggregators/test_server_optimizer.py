# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The server's step, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from nvflare.app_common.app_constant import AppConstants

from custom.aggregators.server_optimizer import ServerAdam, ServerSGD
from custom.errors import BundleError
from tests.support import Engine, arrays


def step(optimizer, weights, mean, tmp_path):
    engine = Engine(tmp_path, {}, [])
    with engine.new_context() as fl_ctx:
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(weights, {}), private=True, sticky=True)
        aggregate = DXO(DataKind.WEIGHT_DIFF, data=mean).to_shareable()
        return optimizer.shareable_to_learnable(aggregate, fl_ctx)[ModelLearnableKey.WEIGHTS]


def test_momentum_is_really_applied(tmp_path):
    """m = 0.9 m + g with g = -mean: -1, then -0.9 - 1 = -1.9, then -1.71 - 0 = -1.71; w = 10 + lr (1 + 1.9 + 1.71)."""
    optimizer, weights = ServerSGD(server_lr=0.5, server_momentum=0.9), arrays(w=[10.0])
    seen = []
    for mean in (1.0, 1.0, 0.0):
        weights = step(optimizer, weights, arrays(w=[mean]), tmp_path)
        seen.append(float(weights["w"][0]))
    assert seen == pytest.approx([10.5, 11.45, 12.305])


def test_steps_the_model_it_received(tmp_path):
    """Not one of its own: the second model has nothing to do with the first."""
    optimizer = ServerSGD(1.0, 0.0)
    step(optimizer, arrays(w=[10.0]), arrays(w=[1.0]), tmp_path)
    assert step(optimizer, arrays(w=[-3.0]), arrays(w=[1.0]), tmp_path)["w"].tolist() == [-2.0]


def test_without_momentum_and_with_lr_1_it_is_fedavg(tmp_path):
    weights, mean = arrays(a=[[1, 2]], b=3.0), arrays(a=[[0.5, -1]], b=0.25)
    stepped = step(ServerSGD(1.0, 0.0), weights, mean, tmp_path)
    assert stepped["a"].tolist() == [[1.5, 1.0]]
    assert stepped["b"].tolist() == 3.25
    assert stepped["a"].dtype == np.float32
    assert weights["a"].tolist() == [[1, 2]], "the received model is not changed"


def test_fedadam_by_hand(tmp_path):
    """The first step of Adam, corrected, is lr g / (|g| + epsilon)."""
    stepped = step(ServerAdam(server_lr=0.1, epsilon=1.0), arrays(w=[5.0]), arrays(w=[3.0]), tmp_path)
    assert stepped["w"].tolist() == pytest.approx([5.0 + 0.1 * 3 / 4])


@pytest.mark.parametrize("absent_in", [{1, 3}, {2}, set()])
def test_a_tensor_without_an_update_counts_as_unchanged(tmp_path, absent_in):
    """b's share of the sparse updates comes and goes; m = 0.9 m + g goes on for both, by hand."""
    optimizer, weights = ServerSGD(1.0, 0.9), arrays(a=[0.0], b=[0.0])
    momentum, expected = {"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}
    for number in range(5):
        mean = arrays(a=[1.0]) if number in absent_in else arrays(a=[1.0], b=[1.0])
        weights = step(optimizer, weights, mean, tmp_path)
        for name in expected:
            momentum[name] = 0.9 * momentum[name] + (1.0 if name in mean else 0.0)
            expected[name] += momentum[name]
    assert {name: float(value[0]) for name, value in weights.items()} == pytest.approx(expected)


def test_statistics_take_the_mean_and_integers_stay(tmp_path):
    weights = arrays(bn__running_mean=[1.0], bn__weight=[1.0]) | {"bn.num_batches_tracked": np.array(7)}
    mean = arrays(bn__running_mean=[0.5], bn__weight=[0.5])
    stepped = step(ServerSGD(server_lr=0.1, server_momentum=0.0), weights, mean, tmp_path)
    assert stepped["bn.running_mean"].tolist() == [1.5]
    assert stepped["bn.weight"].tolist() == pytest.approx([1.05])
    assert stepped["bn.num_batches_tracked"] == 7


def test_an_empty_aggregate_changes_nothing(tmp_path):
    optimizer = ServerSGD(1.0, 0.9)
    step(optimizer, arrays(w=[1.0]), arrays(w=[1.0]), tmp_path)
    assert step(optimizer, arrays(w=[2.0]), {}, tmp_path)["w"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("optimizer", "key"),
    [
        (ServerSGD(server_lr=-1.0), "server_lr"),
        (ServerSGD(server_momentum=1.0), "server_momentum"),
        (ServerAdam(beta2=1.0), "beta2"),
        (ServerAdam(epsilon=float("inf")), "epsilon"),
        (ServerAdam(epsilon=0), "epsilon"),
    ],
)
def test_bad_settings_end_the_job_at_its_start(optimizer, key, tmp_path):
    with pytest.raises(BundleError, match=key):
        optimizer.check()
    engine = Engine(tmp_path, {"optimizer": optimizer}, [])
    with engine.new_context() as fl_ctx:
        engine.fire_event(EventType.START_RUN, fl_ctx)
    assert key in engine.panic()
