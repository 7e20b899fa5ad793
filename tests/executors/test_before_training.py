# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a site finds when it is asked for its first weights, so that no round is spent on it: docs/own-job.md's code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.utils.event import fire_event_to_components
from torch import nn

from custom.executors.fine_tuner import FineTuner
from custom.executors.meta_trainer import MetaTrainer
from custom.executors.model_provider import ModelProvider
from custom.executors.personalizer import Personalizer
from custom.executors.site_task import SiteTask
from custom.executors.trainer import Trainer
from custom.executors.validator import Validator
from custom.keys import WARNINGS
from custom.learning.fed_avg import FedAvg
from custom.learning.personalize import Personalization
from custom.learning.reptile import Reptile
from custom.learning.seed import Seed
from custom.learning.weights import get_weights
from tests.executors.test_executors import execute, model_message
from tests.support import Engine
from tests.writers import ToyWriterData, small_cnn

GUIDE = Path(__file__).parents[2] / "docs" / "own-job.md"


def guide() -> dict[str, Any]:
    """The classes of the guide, as it has them."""
    code = re.search(r" *```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec("\n".join(line[3:] for line in code[1].splitlines()), names)
    return names


def start(engine: Engine, *executors: SiteTask) -> Shareable:
    """The run starts, and the server asks for the first weights."""
    provider = ModelProvider()
    with engine.new_context() as fl_ctx:
        fire_event_to_components(EventType.START_RUN, [*executors, provider], fl_ctx)
    return execute(engine, provider, "get_weights", Shareable())


def own(tmp_path: Path, change: Callable[[Any], None] = lambda data: None, model: nn.Module | None = None) -> Engine:
    """site-2 of two, with the guide's data after `change`."""
    names = guide()

    class Data(names["Data"]):  # type: ignore[misc]
        def site(self, *arguments: Any) -> Any:
            data = super().site(*arguments)
            change(data)
            return data

    torch.manual_seed(0)
    parts = {"seed": Seed(1), "model": model or names["Net"](), "data": Data()}
    return Engine(tmp_path, parts, ["site-1", "site-2"], identity="site-2")


def refusal(reply: Shareable) -> str:
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    return str(reply.get_header(ReservedHeaderKey.ERROR))


def put(name: str, place: Any, value: Any) -> Callable[[Any], None]:
    return lambda data: getattr(data, name).__setitem__(place, value)


def norm(features: int = 20) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def test_the_first_round_is_that_of_a_job_without_the_check(tmp_path: Path) -> None:
    """Bit by bit, with dropout, momentum and BatchNorm."""
    updates = []
    for name in ("with", "without"):
        torch.manual_seed(0)
        model = nn.Sequential(norm(), nn.Dropout(0.5))
        engine, trainer = own(tmp_path / name, model=model), Trainer(batch_size=32, class_weights="balanced")
        weights = get_weights(model)
        if name == "with":
            reply = from_shareable(start(engine, trainer, FineTuner(train_only="0.2", proximal=0.1), Validator()))
            assert all(np.array_equal(reply.data[key], weights[key]) for key in weights)
            assert reply.get_meta_prop(WARNINGS) == []
        torch.rand(5) if name == "without" else None
        updates.append(from_shareable(execute(engine, trainer, "train", model_message(weights))).data)
    assert all(np.array_equal(updates[0][key], updates[1][key]) for key in updates[0])


@pytest.mark.parametrize(
    ("change", "place", "code"),
    [
        (put("x", (5, 3), float("nan")), "site-2 train row 5:", "data-not-finite"),
        (put("x", (405, 3), float("inf")), "site-2 validation row 5:", "data-not-finite"),
        (put("x", (599, 0), float("nan")), "site-2 test row 99:", "data-not-finite"),
        (put("y", 7, 3), "site-2 train row 7 label:", "data-malformed"),
        (lambda data: setattr(data, "y", data.y.float()), "site-2 train row 0 label:", "data-malformed"),
        (lambda data: setattr(data, "x", data.x.double()), "site-2 model:", "model-unfit"),
        (lambda data: setattr(data, "x", data.x[:, :7]), "site-2 model:", "model-unfit"),
        (put("rows", "validation", range(0)), "site-2 validation split:", "data-too-small"),
    ],
    ids=["nan", "infinite", "nan-in-test", "label", "float-labels", "float64", "features", "no-validation"],
)
def test_data_that_cannot_be_trained_on(tmp_path: Path, change: Callable[[Any], None], place: str, code: str) -> None:
    message = refusal(start(own(tmp_path, change), Trainer()))
    assert message.startswith(place)
    assert message.endswith(f"[{code}]")


def test_a_site_without_training_samples_takes_part(tmp_path: Path) -> None:
    engine, trainer = own(tmp_path, put("rows", "train", range(0)), norm()), Trainer()
    first = from_shareable(start(engine, trainer, FineTuner(local_only=True)))
    weights = first.data
    assert first.get_meta_prop(WARNINGS) == ["no training samples: this site only scores models"]
    assert from_shareable(execute(engine, trainer, "train", model_message(weights))).data == {}
    scores = from_shareable(execute(engine, Validator(), "validate", model_message(weights))).data
    assert 0 <= scores["test_accuracy"] <= 1


def test_a_site_without_test_samples_trains_and_cannot_fine_tune(tmp_path: Path) -> None:
    change = put("rows", "test", range(0))
    reply = from_shareable(start(own(tmp_path / "a", change), Trainer(), Validator()))
    assert reply.get_meta_prop(WARNINGS) == ["no test samples: this site will not score the final models"]
    message = refusal(start(own(tmp_path / "b", change), Trainer(), FineTuner()))
    assert message.startswith("site-2 test split:")
    assert message.endswith("[data-too-small]")


def test_batch_norm_and_a_last_batch_of_one(tmp_path: Path) -> None:
    """385 samples, 64 a batch: the last has one, on which the round failed."""
    engine, trainer = own(tmp_path, put("rows", "train", range(385)), norm()), Trainer()
    tuner = FineTuner(fine_tune_epochs=1, local_only=True)
    reply = from_shareable(start(engine, trainer, tuner))
    assert [note for note in reply.get_meta_prop(WARNINGS) if "384 of 385 samples" in note] == reply.get_meta_prop(
        WARNINGS
    )
    assert len(reply.get_meta_prop(WARNINGS)) == 2  # of training and of fine-tuning
    update = from_shareable(execute(engine, trainer, "train", model_message(reply.data)))
    assert np.isfinite(update.data["0.weight"]).all()
    scores = from_shareable(execute(engine, tuner, "fine_tune", model_message(reply.data))).data
    assert {"personal", "local_only"} <= scores.keys()


@pytest.mark.parametrize(
    ("executors", "code"),
    [
        ([Trainer(batch_size=0)], "setting-value"),
        ([Trainer(), FineTuner(train_only="head")], "setting-value"),
        ([Trainer(), FineTuner(train_only="[")], "setting-value"),
        ([FineTuner(local_only=True)], "setting-value"),
        ([MetaTrainer()], "job-component"),
    ],
    ids=["batch_size", "no-match", "no-pattern", "local_only-without-trainer", "no-writers"],
)
def test_settings_of_later_tasks_are_looked_at(tmp_path: Path, executors: list[SiteTask], code: str) -> None:
    assert refusal(start(own(tmp_path), *executors)).endswith(f"[{code}]")


def test_a_personal_model_of_another_architecture(tmp_path: Path) -> None:
    engine = own(tmp_path)
    folder = Path(engine.workspace.get_root_dir()) / "personal_models" / "test"
    folder.mkdir(parents=True)
    torch.save({"model": {"0.weight": torch.zeros(5, 2)}}, folder / "personal_model.pt")
    assert refusal(start(engine, Trainer(), FineTuner())).endswith("[model-mismatch]")


class Tuple(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> Any:
        return super().forward(inputs), inputs


class Squeezed(nn.Linear):
    """Fails in training only, and on a batch of one: as common as squeeze() is."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(inputs)
        return outputs.squeeze() if self.training else outputs


class Detached(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).detach()


@pytest.mark.parametrize("model", [Tuple(20, 3), Squeezed(20, 3), Detached(20, 3), nn.LazyLinear(3), nn.Identity()])
def test_a_model_that_cannot_be_trained(tmp_path: Path, model: nn.Module) -> None:
    engine = own(tmp_path, put("rows", "train", range(65)), model)
    assert refusal(start(engine, Trainer())).endswith("[model-unfit]")


def test_bfloat16_trains_and_is_said(tmp_path: Path) -> None:
    """The update is what training added to the rounded weights; lr and gradients are far above the rounding."""

    class Half(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs.bfloat16())

    torch.manual_seed(0)
    engine, trainer = own(tmp_path, model=Half(20, 3).bfloat16()), Trainer(local_lr=0.5)
    reply = from_shareable(start(engine, trainer))
    assert reply.get_meta_prop(WARNINGS) == ["bfloat16 weights travel as float32"]
    received = {key: value + np.float32(1e-5) for key, value in reply.data.items()}
    update = from_shareable(execute(engine, trainer, "train", model_message(received))).data
    assert update["weight"].dtype == np.float32
    trained = torch.load(engine.run_dir / "local_model.pt", weights_only=True)["model"]["weight"].numpy()
    held = torch.from_numpy(received["weight"]).bfloat16().float().numpy()
    assert np.array_equal(update["weight"], trained - held)


def test_training_that_diverges_is_not_blamed_on_the_data(tmp_path: Path) -> None:
    engine, trainer = own(tmp_path), Trainer(local_lr=1e38, local_epochs=3)
    reply = start(engine, trainer)
    message = refusal(execute(engine, trainer, "train", model_message(from_shareable(reply).data, 1)))
    assert message.startswith("site-2 round 2 train_loss:")
    assert message.endswith("[update-not-finite]")
    assert "local_lr=1e+38" in message


@pytest.mark.parametrize(("row", "place"), [(5, "train row 5:"), (405, "validation row 5:")])
def test_a_nan_that_was_not_looked_for_is_found_when_training_diverges(tmp_path: Path, row: int, place: str) -> None:
    """Of a job without ModelProvider, or data that change during the job."""
    engine, trainer = own(tmp_path, put("x", (row, 3), float("nan"))), Trainer(local_lr=1e38, local_epochs=3)
    weights = get_weights(engine.get_component("model"))
    message = refusal(execute(engine, trainer, "train", model_message(weights)))
    assert message.startswith(f"site-2 {place}")
    assert message.endswith("[data-not-finite]")


def drop_last(data: Any) -> None:
    """As a DataLoader with drop_last=True does when it shuffles."""
    whole = data.batches

    def batches(split: str, batch_size: int, device: Any, generator: Any = None) -> Any:
        passed = whole(split, batch_size, device, generator)
        return passed if generator is None else (batch for batch in passed if len(batch[1]) == batch_size)

    data.batches = batches


def used_up(data: Any) -> None:
    """Gives one iterator only."""
    kept: dict[str, Any] = {}
    whole = data.batches
    data.batches = lambda split, *more: kept.setdefault(split, iter(whole(split, *more)))


def takes_no_generator(data: Any) -> None:
    whole = data.batches
    data.batches = lambda split, batch_size, device: whole(split, batch_size, device)


@pytest.mark.parametrize("change", [drop_last, used_up, takes_no_generator])
def test_data_without_a_batch_to_train_on(tmp_path: Path, change: Callable[[Any], None]) -> None:
    def both(data: Any) -> None:
        data.rows["train"] = range(63)
        change(data)

    message = refusal(start(own(tmp_path, both), Trainer(batch_size=64)))
    assert message.startswith("site-2 train batches():")
    assert message.endswith("[data-malformed]")


@pytest.mark.parametrize("stacked", [False, True])
def test_writers_are_tried_in_the_way_that_they_will_train(tmp_path: Path, stacked: bool) -> None:
    class Items(nn.Module):
        """`item()` works for one copy of the model, and not for copies that are stacked."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = small_cnn()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.inner(inputs[:, :, :8, :8]) * (1 if inputs.mean().item() > -9 else 2)

    parts = {
        "seed": Seed(1),
        "model": Items(),
        "data": ToyWriterData(),
        "fed_avg": FedAvg(1),
        "meta": Reptile(2),
        "personalization": Personalization(1),
    }
    engine = Engine(tmp_path, parts, ["site-1"], identity="site-1")
    weights = get_weights(parts["model"])  # type: ignore[arg-type]
    executors = MetaTrainer(stacked=stacked), MetaTrainer("meta", stacked=stacked), Personalizer(stacked=stacked)
    reply = start(engine, *executors)
    assert reply.get_return_code() == (ReturnCode.EXECUTION_EXCEPTION if stacked else ReturnCode.OK)
    if stacked:
        assert refusal(reply).endswith("[model-unfit]")
    after = get_weights(parts["model"])  # type: ignore[arg-type]
    assert all(np.array_equal(after[key], value) for key, value in weights.items())
