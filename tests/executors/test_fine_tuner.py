# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.signal import Signal
from torch import nn

from custom.errors import BundleError
from custom.executors.fine_tuner import LOCAL_ONLY_STREAM, FineTuner
from custom.executors.model_provider import ModelProvider
from custom.executors.trainer import Trainer
from custom.keys import ROUNDS
from custom.learning.evaluate import evaluate
from custom.learning.optimizer import LocalOptimizer
from custom.learning.seed import Seed, derive
from custom.learning.train import LocalBudget, train
from custom.learning.weights import get_weights, load_weights
from tests.executors.test_executors import execute, model_message
from tests.support import Engine, TinyData

CPU = torch.device("cpu")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    components: dict[str, Any] = {"seed": Seed(1), "model": nn.Linear(2, 2), "data": TinyData(samples=40)}
    return Engine(tmp_path, components, ["site-1", "site-2"], identity="site-2")


def fine_tune(engine: Engine, tuner: FineTuner) -> Shareable:
    message = DXO(DataKind.WEIGHTS, data=get_weights(engine.components["model"])).to_shareable()
    message.set_header(ROUNDS, 3)
    return execute(engine, tuner, "fine_tune", message, Signal())


def folder(engine: Engine) -> Path:
    return Path(engine.workspace.get_root_dir()) / "personal_models" / "test"


def test_the_reply_has_scores_and_no_weights(engine: Engine) -> None:
    reply = from_shareable(fine_tune(engine, FineTuner(local_lr=0.5, batch_size=10)))
    assert reply.data_kind == DataKind.METRICS
    assert set(reply.data) == {"global", "personal", "best_epoch", "epochs"}
    assert reply.data["personal"]["val_accuracy"] > reply.data["global"]["val_accuracy"]


def test_the_personal_model_and_its_card_reproduce_the_scores(engine: Engine) -> None:
    scores = from_shareable(fine_tune(engine, FineTuner(local_lr=0.5, batch_size=10))).data
    model = nn.Linear(2, 2)
    model.load_state_dict(torch.load(folder(engine) / "personal_model.pt", weights_only=True)["model"])
    data = TinyData(samples=40).site("site-2", (), 1)
    for split, prefix in (("validation", "val_"), ("test", "test_")):
        for name, value in evaluate(model, [data.split(split)], prefix).items():
            assert scores["personal"][name] == pytest.approx(value, rel=1e-5)
    card = json.loads((folder(engine) / "model_card.json").read_text())
    assert card["personal"] == scores["personal"]
    assert (card["site"], card["job"], card["rounds"]) == ("site-2", "test", 3)
    assert card["data"]["dataset"] == "points"
    assert {path.name for path in folder(engine).iterdir()} == {"personal_model.pt", "model_card.json"}


def test_it_is_not_submitted_unless_shared(engine: Engine) -> None:
    tuner = FineTuner(local_lr=0.5)
    fine_tune(engine, tuner)
    assert json.loads((folder(engine) / "model_card.json").read_text())["shared"] is False
    refused = execute(engine, tuner, "submit_model", Shareable())
    assert "share_personal_models is off" in refused.get_header(ReservedHeaderKey.ERROR)
    assert not any(isinstance(value, np.ndarray) for value in refused.values())
    sharing = FineTuner(local_lr=0.5, share_personal_models=True)
    fine_tune(engine, sharing)
    shared = from_shareable(execute(engine, sharing, "submit_model", Shareable()))
    assert np.array_equal(shared.data["weight"], load_weights(folder(engine) / "personal_model.pt")["weight"])


def test_another_architecture_on_disk_is_not_overwritten(engine: Engine) -> None:
    folder(engine).mkdir(parents=True)
    torch.save({"model": {"weight": torch.zeros(5, 2)}}, folder(engine) / "personal_model.pt")
    reply = fine_tune(engine, FineTuner())
    message = reply.get_header(ReservedHeaderKey.ERROR)
    assert "site-2 bias" in message
    assert "another architecture" in message
    assert load_weights(folder(engine) / "personal_model.pt")["weight"].shape == (5, 2)


def test_local_only_repeats_the_budget_of_the_rounds_from_the_same_start(engine: Engine) -> None:
    """With one site, whole-batch SGD without momentum and constant rate, rounds and local-only are the same thing."""
    tuner = FineTuner(local_only=True, fine_tune_epochs=1, local_lr=0.1)
    model, trainer = engine.components["model"], Trainer(batch_size=40, local_lr=0.3, momentum=0.0)
    weights = get_weights(model)
    for round_index in range(3):
        difference = from_shareable(execute(engine, trainer, "train", model_message(weights, round_index))).data
        weights = {name: value + difference[name] for name, value in weights.items()}
    reference = nn.Linear(2, 2)
    reference.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    data = TinyData(samples=40).site("site-2", (), 1)
    expected = evaluate(reference, [data.split("test")], "test_")

    message = DXO(DataKind.WEIGHTS, data=weights).to_shareable()
    scores = from_shareable(execute(engine, tuner, "fine_tune", message, Signal())).data
    assert scores["local_only"]["test_accuracy"] == expected["test_accuracy"]
    assert scores["local_only"]["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-5)


def test_without_training_only_the_comparison_is_lost(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    scores = from_shareable(fine_tune(engine, FineTuner(local_only=True))).data
    assert "local_only" not in scores
    assert scores["personal"]
    assert "site-2 local_only: has not trained in this job" in caplog.text


def test_local_only_follows_the_schedule_over_its_own_passes(engine: Engine) -> None:
    """Ten rounds of two steps, four batches a pass: five passes, whose cosine rates are those of every other round."""
    trainer = Trainer(batch_size=10, local_steps=2, local_lr=0.3, lr_schedule="cosine", class_weights="balanced")
    weights = get_weights(engine.components["model"])
    for round_index in range(10):
        execute(engine, trainer, "train", model_message(weights, round_index, num_rounds=10))
    settings = torch.load(engine.run_dir / "local_model.pt", weights_only=True)["training"]
    assert (settings["rounds"], settings["steps"]) == (10, 20)
    data = TinyData(samples=40).site("site-2", (), 1)
    assert LocalBudget(settings["epochs"], settings["steps"], settings["batch_size"]).passes(data) == 5
    got = from_shareable(fine_tune(engine, FineTuner(local_only=True))).data["local_only"]
    seed = derive(1, 1, LOCAL_ONLY_STREAM)
    model, generator = nn.Linear(2, 2), torch.Generator().manual_seed(seed)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    optimizer = LocalOptimizer().build(model.parameters(), 0.3)
    scored = [evaluate(model, [data.split("validation")], "val_")["val_accuracy"]]
    states = [copy.deepcopy(model.state_dict())]
    for number in range(5):
        optimizer.param_groups[0]["lr"] = 0.3 * 0.5 * (1 + math.cos(math.pi * 2 * number / 10))
        balanced = 40 / (2 * torch.bincount(data.labels))
        train(model, data.batches("train", 10, CPU, generator), optimizer, class_weights=balanced)
        scored.append(evaluate(model, [data.split("validation")], "val_")["val_accuracy"])
        states.append(copy.deepcopy(model.state_dict()))
    model.load_state_dict(states[scored.index(max(scored))])
    expected = evaluate(model, [data.split("validation")], "val_") | evaluate(model, [data.split("test")], "test_")
    assert got == pytest.approx(expected, rel=1e-4)


def test_the_proximal_term_keeps_the_personal_model_near_the_global_one(engine: Engine) -> None:
    moved = []
    for proximal in (0.0, 1.0):
        received = get_weights(engine.components["model"])
        fine_tune(engine, FineTuner(local_lr=0.5, batch_size=10, proximal=proximal))
        personal = load_weights(folder(engine) / "personal_model.pt")
        moved.append(np.linalg.norm(personal["weight"] - received["weight"]))
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize("name", ["../escaped", "a/b", "..", "/tmp/escaped"])
def test_a_job_s_name_leads_nowhere_else(tmp_path: Path, engine: Engine, name: str) -> None:
    with engine.new_context() as fl_ctx:
        meta = fl_ctx.get_prop(FLContextKey.JOB_META) | {JobMetaKey.JOB_NAME: name}
        fl_ctx.set_prop(FLContextKey.JOB_META, meta, private=True, sticky=True)
    refused = fine_tune(engine, FineTuner())
    assert "[job-name]" in refused.get_header(ReservedHeaderKey.ERROR)
    assert not list(tmp_path.rglob("personal_model.pt"))
    assert not Path("/tmp/escaped").exists()


@pytest.mark.parametrize("personal_dir", ["/tmp/x", "../x", "a/../../x", "a\0b", "", "a//b", "x" * 300, 3])
def test_personal_models_stay_below_the_workspace(personal_dir: str) -> None:
    with pytest.raises(BundleError, match="personal_dir: expected a folder below"):
        FineTuner(personal_dir=personal_dir).check()


def test_what_was_private_stays_so_in_later_tasks(engine: Engine) -> None:
    """The model component is shared by all tasks of a process; none may send what fine-tuning made of it."""
    provider = ModelProvider()
    with engine.new_context() as fl_ctx:
        provider.handle_event(EventType.START_RUN, fl_ctx)
    built = get_weights(engine.components["model"])
    fine_tune(engine, FineTuner(local_lr=0.5))
    assert np.array_equal(get_weights(engine.components["model"])["weight"], built["weight"])
    engine.components["model"].weight.data += 1
    reply = from_shareable(execute(engine, provider, "get_weights", Shareable()))
    assert np.array_equal(reply.data["weight"], built["weight"])


@pytest.mark.parametrize(("key", "value"), [("job_id", "an earlier job"), ("shared", False)])
def test_a_model_of_an_earlier_job_or_without_consent_is_not_submitted(engine: Engine, key: str, value: object) -> None:
    tuner = FineTuner(share_personal_models=True)
    fine_tune(engine, tuner)
    card = json.loads((folder(engine) / "model_card.json").read_text())
    (folder(engine) / "model_card.json").write_text(json.dumps({**card, key: value}))
    reply = execute(engine, tuner, "submit_model", Shareable())
    assert "no personal model of this job to share" in reply.get_header(ReservedHeaderKey.ERROR)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"train_only": "fc9"}, "train_only: expected a match among weight, bias, got 'fc9'"),
        ({"train_only": "("}, "train_only: expected a regular expression, such as fc3"),
        ({"share_personal_models": "false"}, "share_personal_models: expected true or false, got 'false'"),
        ({"patience": 0}, "patience: expected an integer of at least 1, got 0"),
        ({"proximal": -1}, "proximal: expected a finite number of at least 0, got -1"),
        ({"fine_tune_epochs": 0}, "fine_tune_epochs: expected an integer of at least 1, got 0"),
    ],
)
def test_bad_settings_are_answered(engine: Engine, args: dict[str, Any], message: str) -> None:
    assert message in fine_tune(engine, FineTuner(**args)).get_header(ReservedHeaderKey.ERROR)
