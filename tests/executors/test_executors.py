# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from torch import nn

from custom.executors.model_provider import ModelProvider
from custom.executors.site_task import SiteTask
from custom.executors.trainer import Trainer
from custom.executors.validator import Validator
from custom.keys import DATA_INFO, DATA_NOTES, LEFT_OUT, SAMPLES, SPLIT, TRAIN_METRICS, WARNINGS
from custom.learning.evaluate import evaluate
from custom.learning.seed import Seed
from custom.learning.weights import get_weights, load_weights
from tests.support import Engine, TinyData


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    components: dict[str, Any] = {"seed": Seed(1), "model": nn.Linear(2, 2), "data": TinyData()}
    return Engine(tmp_path, components, ["site-1", "site-2"], identity="site-2")


def execute(engine: Engine, executor: SiteTask, task: str, data: Shareable, abort: Signal | None = None) -> Shareable:
    with engine.new_context() as fl_ctx:
        return executor.execute(task, data, fl_ctx, abort or Signal())


def model_message(weights: dict[str, np.ndarray], round_index: int = 0, num_rounds: int = 5) -> Shareable:
    message = DXO(DataKind.WEIGHTS, data=weights).to_shareable()
    message.set_header(AppConstants.CURRENT_ROUND, round_index)
    message.set_header(AppConstants.NUM_ROUNDS, num_rounds)
    return message


def test_trainer_returns_the_difference_of_one_step(engine: Engine) -> None:
    """One full batch without momentum: the difference is -lr times the gradient, computed here by autograd."""
    received = get_weights(engine.components["model"])
    reference = nn.Linear(2, 2)
    reference.load_state_dict({k: torch.from_numpy(v) for k, v in received.items()})
    data = TinyData().site("site-2", (), 1)
    nn.functional.cross_entropy(reference(data.inputs), data.labels).backward()

    trainer = Trainer(local_steps=1, batch_size=12, local_lr=0.5, momentum=0.0)
    result = from_shareable(execute(engine, trainer, "train", model_message(received)))

    assert result.data_kind == DataKind.WEIGHT_DIFF
    assert result.data["weight"] == pytest.approx(-0.5 * reference.weight.grad.numpy(), abs=1e-6)
    assert result.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 12
    scores = evaluate(reference, [data.split("validation")], "val_")
    assert result.get_meta_prop(MetaKey.INITIAL_METRICS) == pytest.approx(scores)
    train_loss = evaluate(reference, [data.split("train")], "")["loss"]
    assert result.get_meta_prop(TRAIN_METRICS)["train_loss"] == pytest.approx(train_loss)


@pytest.mark.parametrize(
    ("schedule", "warmup", "round_index", "share"),
    [("cosine", 0, 2, 0.5 * (1 + math.cos(0.4 * math.pi))), ("step", 0, 3, 0.1), ("constant", 3, 1, 0.5)],
)
def test_the_learning_rate_is_that_of_the_round(
    engine: Engine, schedule: str, warmup: int, round_index: int, share: float
) -> None:
    """Of five rounds. A step of whole-batch SGD without momentum is as long as its learning rate."""
    received = get_weights(engine.components["model"])
    plain = {"local_steps": 1, "batch_size": 12, "momentum": 0.0}
    trainers = Trainer(**plain), Trainer(**plain, lr_schedule=schedule, lr_warmup_rounds=warmup)
    steps = [
        from_shareable(execute(engine, trainer, "train", model_message(received, number))).data["weight"]
        for trainer, number in zip(trainers, (0, round_index), strict=True)
    ]
    assert steps[1] == pytest.approx(share * steps[0], rel=1e-2)


def test_a_schedule_that_is_over_is_refused(engine: Engine) -> None:
    """As with start_round above 0: FLARE counts rounds from it, and says how many there are without it."""
    message = model_message(get_weights(engine.components["model"]), 5)
    refused = execute(engine, Trainer(lr_schedule="cosine"), "train", message)
    assert "start_round: expected 0 with lr_schedule cosine" in refused.get_header(ReservedHeaderKey.ERROR)
    assert from_shareable(execute(engine, Trainer(), "train", message)).data


def test_two_runs_of_one_round_agree_bit_for_bit_and_rounds_differ(engine: Engine) -> None:
    received = get_weights(engine.components["model"])
    trainer = Trainer(batch_size=5)
    runs = [from_shareable(execute(engine, trainer, "train", model_message(received, r))).data for r in (0, 0, 1)]
    assert np.array_equal(runs[0]["weight"], runs[1]["weight"])
    assert not np.array_equal(runs[0]["weight"], runs[2]["weight"])


def test_submitted_model_is_received_plus_difference(engine: Engine) -> None:
    received = get_weights(engine.components["model"])
    difference = from_shareable(execute(engine, Trainer(), "train", model_message(received, 2))).data
    submitted = from_shareable(execute(engine, ModelProvider(), "submit_model", Shareable())).data
    assert submitted["weight"] == pytest.approx(received["weight"] + difference["weight"], abs=1e-6)
    assert set(load_weights(engine.run_dir / "local_model.pt")) == {"weight", "bias"}


def test_submitting_before_training_is_an_error_that_says_so(engine: Engine) -> None:
    reply = execute(engine, ModelProvider(), "submit_model", Shareable())
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert reply.get_header(ReservedHeaderKey.ERROR).endswith("[nothing-trained]")


def test_initial_weights_come_with_facts_about_the_data(engine: Engine) -> None:
    provider = ModelProvider()
    with engine.new_context() as fl_ctx:
        provider.handle_event(EventType.START_RUN, fl_ctx)
    reply = from_shareable(execute(engine, provider, "get_weights", Shareable()))
    assert np.array_equal(reply.data["weight"], engine.components["model"].weight.detach().numpy())
    assert reply.get_meta_prop(DATA_INFO)["dataset"] == "points"
    assert reply.get_meta_prop(SAMPLES) == {"train": 12, "validation": 12, "test": 12, "points": 12}


@pytest.mark.parametrize(("split", "prefix"), [("validation", "val_"), ("test", "test_"), (None, "test_")])
def test_validator_scores_the_split_it_is_asked_for(engine: Engine, split: str | None, prefix: str) -> None:
    perfect = {"weight": np.array([[-9, 0], [9, 0]], np.float32), "bias": np.zeros(2, np.float32)}
    message = model_message(perfect)
    if split:
        message.set_header(SPLIT, split)
    assert from_shareable(execute(engine, Validator(), "validate", message)).data[f"{prefix}accuracy"] == 1.0


def test_a_foreign_model_is_refused_with_the_name_of_the_tensor(engine: Engine) -> None:
    reply = execute(engine, Trainer(), "train", model_message({"weight": np.zeros((3, 2), np.float32)}))
    assert "bias: expected (2,), got none" in reply.get_header(ReservedHeaderKey.ERROR)


def test_an_error_in_user_code_reaches_the_server_as_one_line(engine: Engine) -> None:
    class Broken(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no forward today")

    engine.components["model"] = Broken(2, 2)
    reply = execute(engine, Trainer(), "train", model_message(get_weights(engine.components["model"])))
    assert "no forward today" in reply.get_header(ReservedHeaderKey.ERROR)
    assert "\n" not in reply.get_header(ReservedHeaderKey.ERROR)


def test_what_the_data_say_of_themselves_is_sent_and_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = type(TinyData().site("site-2", (), 1))
    monkeypatch.setattr(made, "left_out", lambda self: {"files with .dcm": 24}, raising=False)
    monkeypatch.setattr(made, "data_warnings", lambda self: ["one class is 16-bit"], raising=False)
    result = from_shareable(execute(engine, ModelProvider(), "get_weights", Shareable()))
    told = [result.get_meta_prop(key) for key in (LEFT_OUT, WARNINGS, DATA_NOTES)]
    assert told == [{"files with .dcm": 24}, ["one class is 16-bit"], []]
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("files with .dcm: 24" in line for line in warned)
    assert any("one class is 16-bit" in line for line in warned)


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        (PermissionError(13, "Permission denied", "/data/locked"), "the right"),
        (FileNotFoundError(2, "No such file", "/data/locked"), "correct the path"),
    ],
)
def test_data_that_cannot_be_read_are_one_line_with_a_code(engine: Engine, cause: OSError, remedy: str) -> None:
    class Locked(TinyData):
        def site(self, *_: Any) -> Any:
            raise cause

    engine.components["data"] = Locked()
    error = execute(engine, ModelProvider(), "get_weights", Shareable()).get_header(ReservedHeaderKey.ERROR)
    assert "site-2 /data/locked" in error
    assert error.endswith("[file-unusable]")
    assert remedy in error


def test_a_missing_component_is_named(engine: Engine) -> None:
    del engine.components["data"]
    reply = execute(engine, ModelProvider(), "get_weights", Shareable())
    assert "site-2 data: expected a component with this id" in reply.get_header(ReservedHeaderKey.ERROR)


def test_abort_is_answered_as_such(engine: Engine) -> None:
    abort = Signal()
    abort.trigger(True)
    message = model_message(get_weights(engine.components["model"]))
    assert execute(engine, Trainer(), "train", message, abort).get_return_code() == ReturnCode.TASK_ABORTED


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"local_epochs": 0}, "local_epochs: expected an integer of at least 1, got 0"),
        ({"lr_schedule": "linear"}, "lr_schedule: expected one of constant, cosine, step, got linear"),
        ({"local_lr": float("nan")}, "local_lr: expected a finite number of at least 0, got nan"),
        ({"mixed_precision": "yes"}, "mixed_precision: expected true or false, got 'yes'"),
        ({"class_weights": "auto"}, "class_weights: expected one of none, balanced, got 'auto'"),
        ({"momentum": "0.9"}, "momentum: expected a finite number of at least 0, got '0.9'"),
    ],
)
def test_a_setting_out_of_range_is_an_answer_and_no_stack_trace(
    engine: Engine, args: dict[str, Any], message: str
) -> None:
    reply = execute(engine, Trainer(**args), "train", model_message(get_weights(engine.components["model"])))
    assert message in reply.get_header(ReservedHeaderKey.ERROR)


def test_a_site_outside_the_roster_gets_no_share(tmp_path: Path) -> None:
    components: dict[str, Any] = {"seed": Seed(1), "model": nn.Linear(2, 2), "data": TinyData()}
    engine = Engine(tmp_path, components, ["site-1", "site-2"], identity="site-9")
    reply = execute(engine, ModelProvider(), "get_weights", Shareable())
    assert "site-9 job_clients: is not among the sites" in reply.get_header(ReservedHeaderKey.ERROR)


def test_a_site_without_samples_has_nothing_to_contribute(engine: Engine) -> None:
    engine.components["data"] = TinyData(samples=0)
    message = model_message(get_weights(engine.components["model"]))
    update = from_shareable(execute(engine, Trainer(), "train", message))
    assert update.data == {}
    assert update.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 0
    reply = execute(engine, Validator(), "validate", message)
    assert "site-2 test split: has no samples" in reply.get_header(ReservedHeaderKey.ERROR)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Linear(3, 2), r"site-2 model: expected a model for points, samples of shape \[2\], got Linear \(.*mat1"),
        (nn.Linear(2, 1), "site-2 num_classes: expected a model with 2 outputs.*set num_classes=2"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_named_before_any_training(engine, model, reason) -> None:
    engine.components["model"] = model
    reply = execute(engine, ModelProvider(), "get_weights", Shareable())
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert re.search(reason, reply.get_header(ReservedHeaderKey.ERROR))


def test_balanced_classes_weigh_alike_in_the_loss(engine: Engine) -> None:
    """One full batch: the gradient is that of the loss with torch's weights, n / (2 n_c), computed here by autograd."""
    received = get_weights(engine.components["model"])
    reference = nn.Linear(2, 2)
    reference.load_state_dict({k: torch.from_numpy(v) for k, v in received.items()})
    data = TinyData().site("site-2", (), 1)
    counts = torch.bincount(data.labels)
    assert counts[0] != counts[1]
    nn.functional.cross_entropy(reference(data.inputs), data.labels, 12 / (2 * counts)).backward()
    trainer = Trainer(local_steps=1, batch_size=12, local_lr=0.5, momentum=0.0, class_weights="balanced")
    result = from_shareable(execute(engine, trainer, "train", model_message(received)))
    assert result.data["weight"] == pytest.approx(-0.5 * reference.weight.grad.numpy(), abs=1e-6)
