# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Tasks of a site that hosts writers: `train`, `meta_train` and `personalize`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey
from nvflare.app_common.app_constant import AppConstants
from torch import nn

from custom.aggregators.weighted import weighted_mean
from custom.executors.meta_trainer import MetaTrainer
from custom.executors.model_provider import ModelProvider
from custom.executors.personalizer import Personalizer
from custom.filters.draw_writers import draw
from custom.keys import EVALUATED, SAMPLES, TRAIN_METRICS, WRITERS
from custom.learning.fed_avg import FedAvg
from custom.learning.personalize import Personalization
from custom.learning.reptile import Reptile
from custom.learning.seed import Seed
from custom.learning.weights import get_weights
from custom.models.emnist_cnn import EmnistCnn
from tests.executors.test_executors import execute
from tests.support import Engine, TinyData
from tests.writers import ToyWriterData

ROSTER = ["site-1", "site-2", "site-3"]


def site(folder, name="site-1", roster=("site-1",), **changed) -> Engine:
    torch.manual_seed(0)
    components: dict[str, Any] = {
        "seed": Seed(1),
        "model": EmnistCnn(hidden=32),
        "data": ToyWriterData(),
        "fed_avg": FedAvg(1),
        "reptile": Reptile(2),
        "personalization": Personalization(1, eval_every=2),
    }
    return Engine(folder / name, components | changed, list(roster), identity=name)


def message(engine, writers, round_index=1):
    shareable = DXO(DataKind.WEIGHTS, data=get_weights(engine.components["model"])).to_shareable()
    for key, value in ((AppConstants.CURRENT_ROUND, round_index), (AppConstants.NUM_ROUNDS, 5), (WRITERS, writers)):
        shareable.set_header(key, value)
    return shareable


def train(engine, writers, round_index=1, algorithm="fed_avg"):
    reply = execute(engine, MetaTrainer(algorithm), "train", message(engine, writers, round_index))
    assert reply.get_return_code() == ReturnCode.OK, reply.get_header(ReservedHeaderKey.ERROR)
    return from_shareable(reply)


@pytest.mark.parametrize("algorithm", ["fed_avg", "reptile"])
def test_three_sites_make_the_model_that_one_site_makes(tmp_path, algorithm):
    """The six training writers in one pool, or dealt to three sites: one aggregate, to float tolerance."""
    alone = train(site(tmp_path), draw({"site-1": 6}, 4, seed=3)["site-1"], algorithm=algorithm)
    drawn = draw(dict.fromkeys(ROSTER, 2), 4, seed=3)
    parts = [train(site(tmp_path, name, ROSTER), drawn[name], algorithm=algorithm) for name in ROSTER]
    weights = [part.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) for part in parts]
    assert sum(weights) == alone.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
    together = weighted_mean((w, part.data) for w, part in zip(weights, parts, strict=True) if w)
    assert together.keys() == alone.data.keys()
    # Adam's first step is the sign of a gradient, so where that is a rounding error a value may differ.
    share = 1.0 if algorithm == "fed_avg" else 0.999
    for name, value in alone.data.items():
        assert np.abs(value).max() > 1e-5
        assert np.isclose(together[name], value, atol=1e-7, rtol=1e-4).mean() >= share, name


def test_a_site_none_of_whose_writers_were_drawn_has_nothing_to_contribute(tmp_path):
    update = train(site(tmp_path), [])
    assert update.data == {}
    assert update.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 0
    assert update.get_meta_prop(TRAIN_METRICS) == {"writers": 0, "dropped_writers": 0}


def test_the_weight_is_the_number_of_samples_or_of_writers(tmp_path):
    """Of ToyWriterData the writers 0 and 3 have 9 and 21 samples."""
    for algorithm, weight in (("fed_avg", 30), ("reptile", 2)):
        update = train(site(tmp_path), [0, 3], algorithm=algorithm)
        assert update.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == weight


def test_the_received_model_is_scored_when_that_is_due(tmp_path):
    engine = site(tmp_path)
    assert train(engine, [0], round_index=1).get_meta_prop(EVALUATED) is None
    evaluated = train(site(tmp_path), [0], round_index=2).get_meta_prop(EVALUATED)
    fresh = site(tmp_path)  # with the model as it was received
    scores = from_shareable(execute(fresh, Personalizer(), "personalize", message(fresh, []))).data
    assert evaluated["writers"] == len(scores["query"]) == 2
    for name in ("initial_loss", "personalized_accuracy"):
        assert evaluated[name] == pytest.approx(np.mean(scores[name]))


def test_held_out_writers_are_never_trained_on(tmp_path):
    """The update of all training writers is the same, bit for bit, when the held-out writers' images are others.

    In a round that begins with scoring, and so personalising, on the held-out writers.
    """
    first = train(site(tmp_path), list(range(6)), round_index=2)
    assert first.get_meta_prop(EVALUATED)["writers"] == 2
    changed = ToyWriterData()
    changed.writers.images[changed.writers.offsets[6] :] = 0
    second = train(site(tmp_path, data=changed), list(range(6)), round_index=2)
    assert all(np.array_equal(value, second.data[name]) for name, value in first.data.items())
    changed.writers.images[:] = 0
    third = train(site(tmp_path, data=changed), list(range(6)), round_index=2)
    assert not np.array_equal(first.data["fc2.weight"], third.data["fc2.weight"]), "the test would see a difference"


def test_a_writer_with_a_bad_update_is_dropped_and_counted(tmp_path, caplog):
    update = train(site(tmp_path, fed_avg=FedAvg(3, local_lr=1e30)), [0, 3])
    assert update.get_meta_prop(TRAIN_METRICS) == {"writers": 0, "dropped_writers": 2}
    assert update.data == {}
    assert "2 dropped" in caplog.text


@pytest.mark.parametrize("writers", [None, [6], [-1], ["0"], "all"])
def test_writers_that_do_not_exist_are_refused(tmp_path, writers):
    engine = site(tmp_path)
    reply = execute(engine, MetaTrainer(), "train", message(engine, writers))
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert "site-1 writers: the task does not say which writers are to train" in reply.get_header(
        ReservedHeaderKey.ERROR
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"data": TinyData()}, "a component whose data come by writers"),
        ({"fed_avg": None}, "fed_avg: expected a component with this id"),
        ({"fed_avg": FedAvg(0)}, "local_epochs"),
        ({"personalization": Personalization(support_fraction=2)}, "support_fraction"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changed, reason):
    engine = site(tmp_path, **changed)
    reply = execute(engine, MetaTrainer(), "train", message(engine, [0]))
    assert reason in reply.get_header(ReservedHeaderKey.ERROR)


def test_the_server_learns_how_many_writers_there_are(tmp_path):
    reply = from_shareable(execute(site(tmp_path), ModelProvider(), "get_weights", message(site(tmp_path), [])))
    assert reply.get_meta_prop(SAMPLES) == {
        "train": 69,
        "test": 26,
        "largest_writer": 21,
        "training_writers": 6,
        "held_out_writers": 2,
        "skipped_writers": 0,
    }


def test_a_model_that_writers_cannot_train_is_named_before_any_training(tmp_path):
    model = nn.Sequential(EmnistCnn(hidden=8), nn.BatchNorm1d(10))
    engine = site(tmp_path, model=model)
    with engine.new_context() as fl_ctx:
        MetaTrainer().handle_event(EventType.START_RUN, fl_ctx)
    reply = execute(engine, ModelProvider(), "get_weights", message(site(tmp_path), []))
    assert "use GroupNorm in place of BatchNorm" in reply.get_header(ReservedHeaderKey.ERROR)
