# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Task `train`: score the received model, train it on the site's data, return the difference.

The client side of FedAvg (McMahan et al. 2017, https://arxiv.org/abs/1602.05629); the weight of a site is the number of
its training samples. The optimiser is new in every round, as in the paper.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from pydantic import BeforeValidator
from torch import nn

from custom.checks.numbers import check_counts, check_rates
from custom.data.inspection import check_samples
from custom.data.site_data import Batch
from custom.errors import BundleError
from custom.executors.site_task import Site, SiteTask
from custom.keys import TRAIN_METRICS, TRAINING
from custom.learning.class_weights import balanced, check_class_weights, class_weights_of, count_classes
from custom.learning.evaluate import evaluate, evaluate_split
from custom.learning.optimizer import LocalOptimizer
from custom.learning.rehearsal import FEW, first_batch, left_out, need_samples, trainable, try_steps
from custom.learning.schedule import learning_rate
from custom.learning.seed import derive, seed_everything
from custom.learning.torch_file import Content, read_as
from custom.learning.train import LocalBudget, train
from custom.learning.weights import (
    Weights,
    as_held,
    get_weights,
    save_atomically,
    set_weights,
    to_tensors,
    weight_difference,
)
from custom.metrics import is_count

DEFAULT_LR = 0.01


def _optimizer(value: Any) -> LocalOptimizer:
    optimizer = LocalOptimizer(**value) if isinstance(value, dict) else value  # in the file it is a dictionary
    optimizer.check()
    return optimizer


class Training(Content):
    """How the kept model was trained, in all rounds together."""

    rounds: int
    epochs: int
    steps: int | None
    batch_size: int
    accumulate_batches: int
    local_lr: float
    lr_schedule: str
    lr_warmup_rounds: int
    optimizer: Annotated[LocalOptimizer, BeforeValidator(_optimizer)]
    mixed_precision: bool
    class_weights: str


class _LocalModel(Content):
    training: Training  # its key is TRAINING


class Trainer(SiteTask):
    """Trains with SGD and momentum, or AdamW.

    Args:
        local_epochs: passes over the site's data a round.
        local_steps: batches a round, in place of `local_epochs`.
        batch_size: samples a batch.
        accumulate_batches: batches a step of the optimiser, for steps on more samples than fit into memory.
        local_lr: the highest learning rate; if None, the model's `suggested_lr`, or 0.01 if it has none.
        lr_schedule: `constant`, `cosine` or `step`, across rounds.
        lr_warmup_rounds: rounds over which the learning rate rises to that.
        optimizer: `sgd` or `adamw`.
        momentum: of SGD, within a round; AdamW's beta1.
        weight_decay: L2 penalty; of AdamW, decoupled and on matrices only.
        mixed_precision: bfloat16 forward pass, on CUDA and on a CPU with AMX.
        class_weights: `none`, or `balanced`: in the loss, each class of the site's training data counts as much as any
            other.
        writer: id of a FLARE log writer (such as TBWriter) for the curves; none if there is no such component.
        data, model, seed, device: as in `SiteTask`.
    """

    def __init__(
        self,
        local_epochs: int = 1,
        local_steps: int | None = None,
        batch_size: int = 64,
        accumulate_batches: int = 1,
        local_lr: float | None = None,
        lr_schedule: str = "constant",
        lr_warmup_rounds: int = 0,
        optimizer: str = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        mixed_precision: bool = False,
        class_weights: str = "none",
        writer: str = "writer",
        data: str = "data",
        model: str = "model",
        seed: str = "seed",
        device: str = "auto",
    ) -> None:
        super().__init__(data, model, seed, device)
        self.budget = LocalBudget(local_epochs, local_steps, batch_size)
        self.accumulate_batches = accumulate_batches
        self.local_lr, self.lr_schedule, self.lr_warmup_rounds = local_lr, lr_schedule, lr_warmup_rounds
        self.optimizer = LocalOptimizer(optimizer, momentum, weight_decay)
        self.mixed_precision, self.class_weights, self.writer_id = mixed_precision, class_weights, writer

    def check(self) -> None:
        """Budget, schedule, optimiser, rates, precision and weights."""
        check_class_weights(self.class_weights)
        self.budget.check()
        check_counts(accumulate_batches=self.accumulate_batches)
        if self.local_lr is not None:
            check_rates(local_lr=self.local_lr)
        learning_rate(1.0, self.lr_schedule, 0, 1, self.lr_warmup_rounds)
        self.optimizer.check()
        if not isinstance(self.mixed_precision, bool):
            raise BundleError(
                code="setting-value", key="mixed_precision", expected="true or false", got=repr(self.mixed_precision)
            )

    def run(self, task_name: str, shareable: Shareable, site: Site, fl_ctx: FLContext, abort: Signal) -> Shareable:
        """One round."""
        started = time.monotonic()
        round_index = int(shareable.get_header(AppConstants.CURRENT_ROUND, 0))
        num_rounds = int(shareable.get_header(AppConstants.NUM_ROUNDS, 1))
        if site.data.size("train") == 0:
            return nothing_to_contribute()
        if round_index >= num_rounds and self.lr_schedule != "constant":
            raise BundleError(
                code="setting-value",
                site=site.name,
                key="start_round",
                expected=f"0 with lr_schedule {self.lr_schedule}, which falls over rounds 1 to {num_rounds}",
                got=f"round {round_index + 1}",
                remedy="set start_round to 0, or lr_schedule to constant; `bundle resume` continues a job",
            )
        received = from_shareable(shareable).data
        set_weights(site.model, received)
        held = as_held(site.model, received)
        if not (start := first_model_path(site.run_dir)).exists():
            save_atomically({"model": to_tensors(received)}, start)
        metrics = evaluate_split(site.model, site.data, "validation", site.device)

        loss = self._train(site, round_index, num_rounds, abort)
        if not math.isfinite(loss):
            check_samples(site.data)  # of a job that did not look at them, or data that have changed
            raise self._diverged(site, round_index, loss)

        trained = get_weights(site.model)
        self._keep(site, trained, round_index + 1)
        samples = site.data.size("train")
        self.log_info(
            fl_ctx,
            f"{site.name}  round {round_index + 1}/{num_rounds}  received val_accuracy {metrics['val_accuracy']:.3f}  "
            f"train_loss {loss:.3f}  {samples} samples  {time.monotonic() - started:.1f} s",
        )
        self._write_curves({**metrics, "train_loss": loss}, round_index, fl_ctx)
        return DXO(
            DataKind.WEIGHT_DIFF,
            data=weight_difference(trained, held),
            meta={
                MetaKey.NUM_STEPS_CURRENT_ROUND: samples,
                MetaKey.INITIAL_METRICS: metrics,
                TRAIN_METRICS: {"train_loss": loss},
            },
        ).to_shareable()

    def try_out(self, site: Site, fl_ctx: FLContext) -> list[str]:
        """Scores a few validation samples, and trains on one small batch, and on one of the last's size."""
        if not site.data.size("train"):
            return []  # as in `run`
        need_samples(site.data, ["validation"], "to choose the best round by")
        evaluate(site.model, [first_batch(site.data, "validation", FEW, site.device)], "val_")
        classes = site.data.describe()["num_classes"]

        def step(batch: Batch) -> float:
            weights = balanced(count_classes([batch], classes)).to(site.device)
            return train(
                site.model,
                iter([batch]),
                self.optimizer.build(site.model.parameters(), self._highest_lr(site.model)),
                mixed_precision=self.mixed_precision,
                class_weights=None if self.class_weights == "none" else weights,
            )

        data = trainable(site.model, site.data, self.budget.batch_size, site.device)
        try_steps(site.model, data, self.budget, site.device, step)
        return left_out(data)

    def _diverged(self, site: Site, round_index: int, loss: float) -> BundleError:
        lr = self._highest_lr(site.model)
        others = ", or switch mixed_precision off" if self.mixed_precision else ""
        return BundleError(
            "training diverged, though all inputs are finite and all labels in range",
            code="update-not-finite",
            site=site.name,
            round_number=round_index + 1,
            key="train_loss",
            expected="a finite number",
            got=loss,
            remedy=f"set a learning rate below local_lr={lr:g} ({self.optimizer.name}), or scale the inputs{others}",
        )

    def _train(self, site: Site, round_index: int, num_rounds: int, abort: Signal) -> float:
        seed = derive(site.seed, site.index, round_index)
        seed_everything(seed)  # dropout
        highest = self._highest_lr(site.model)
        lr = learning_rate(highest, self.lr_schedule, round_index, num_rounds, self.lr_warmup_rounds)
        data = trainable(site.model, site.data, self.budget.batch_size, site.device)
        return train(
            site.model,
            self.budget.batches(data, site.device, torch.Generator().manual_seed(seed)),
            self.optimizer.build(site.model.parameters(), lr),
            accumulate_batches=self.accumulate_batches,
            mixed_precision=self.mixed_precision,
            class_weights=class_weights_of(self.class_weights, site.data, site.device),
            should_stop=lambda: bool(abort.triggered),
        )

    def _highest_lr(self, model: nn.Module) -> float:
        return float(getattr(model, "suggested_lr", DEFAULT_LR)) if self.local_lr is None else self.local_lr

    def _keep(self, site: Site, weights: Weights, rounds: int) -> None:
        """Keeps the site's model on disk, since its process may not outlive the task (simulator with -t below -n)."""
        steps = self.budget.local_steps
        training = Training(
            rounds=rounds,
            epochs=rounds * self.budget.local_epochs,
            steps=None if steps is None else rounds * steps,
            batch_size=self.budget.batch_size,
            accumulate_batches=self.accumulate_batches,
            local_lr=self._highest_lr(site.model),
            lr_schedule=self.lr_schedule,
            lr_warmup_rounds=self.lr_warmup_rounds,
            optimizer=self.optimizer,
            mixed_precision=self.mixed_precision,
            class_weights=self.class_weights,
        )
        content = {"model": to_tensors(weights), "round": rounds, TRAINING: training.model_dump()}
        save_atomically(content, local_model_path(site.run_dir))

    def _write_curves(self, scalars: dict[str, float], round_index: int, fl_ctx: FLContext) -> None:
        writer = fl_ctx.get_engine().get_component(self.writer_id)
        if writer is not None:
            for tag, value in ((tag, value) for tag, value in scalars.items() if not is_count(tag)):
                writer.add_scalar(tag, value, global_step=round_index)


def read_training(run_dir: Path, site: str) -> Training:
    """Of the site's last model of the running job.

    Raises:
        BundleError: it has none, or the file is damaged.
    """
    path = local_model_path(run_dir)
    if not path.is_file():
        raise BundleError(
            "has not trained in this job, so local_only has no budget to repeat",
            code="nothing-trained",
            site=site,
            key="local_only",
        )
    try:
        return read_as(path, _LocalModel).training
    except Exception as error:  # of torch or of the schema
        raise BundleError("cannot be read: it is damaged", code="site-state-damaged", key=str(path)) from error


def local_model_path(run_dir: Path) -> Path:
    """Where a site keeps its last model of the running job."""
    return run_dir / "local_model.pt"


def first_model_path(run_dir: Path) -> Path:
    """Where a site keeps the first model it received in the running job."""
    return run_dir / "first_model.pt"


def nothing_to_contribute() -> Shareable:
    """The update of a site without samples: empty, with weight 0."""
    return DXO(DataKind.WEIGHT_DIFF, data={}, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 0}).to_shareable()
