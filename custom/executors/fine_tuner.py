# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Task `fine_tune`: the site makes the global model its own, keeps the result, and reports scores only.

Also `submit_model`, which is refused unless the site's personal model may leave it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from custom import personal_model
from custom.checks.numbers import check_counts, check_rates
from custom.data.site_data import Batch
from custom.errors import BundleError
from custom.executors.site_task import Site, SiteTask, executors_of
from custom.executors.trainer import Trainer, first_model_path, read_training
from custom.keys import ROUNDS
from custom.learning.class_weights import class_weights_of
from custom.learning.evaluate import evaluate_split
from custom.learning.fine_tune import FineTuned, compile_pattern, fine_tune, only_training, pull_towards
from custom.learning.optimizer import LocalOptimizer
from custom.learning.rehearsal import left_out, need_samples, trainable, try_steps
from custom.learning.schedule import learning_rate
from custom.learning.seed import derive, seed_everything
from custom.learning.train import LocalBudget, train
from custom.learning.weights import get_weights, load_weights, set_weights
from custom.names import check_name, is_name
from custom.panic import fails_next_task

FINE_TUNE_STREAM, LOCAL_ONLY_STREAM = 1_000_001, 1_000_002  # beyond any round, so that the random numbers are others


class FineTuner(SiteTask):
    """Fine-tunes with a fresh optimiser, and keeps the epoch that is best on validation, the received included.

    Args:
        fine_tune_epochs: passes over the site's data, at most.
        fine_tune_steps: batches at most, in place of `fine_tune_epochs`.
        batch_size: samples a batch.
        local_lr: learning rate.
        optimizer, momentum, weight_decay: as in `Trainer`.
        proximal: L2 pull towards the global model (Ditto's lambda).
        train_only: regular expression for the names of the parameters to train, such as `fc3` for the head; all others,
            and the statistics of BatchNorm among them, stay as they are. Empty trains everything.
        patience: epochs without a better validation accuracy before it stops.
        local_only: also train a model of the site's own from the same start, with the budget of all rounds and no
            federation, to compare with; it is scored and thrown away.
        mixed_precision: bfloat16 forward pass, on CUDA and on a CPU with AMX.
        share_personal_models: let `submit_model` send the personal model. Off, it never leaves the site.
        personal_dir: where personal models are kept, below the site's FLARE workspace; a folder per job name.
        data, model, seed, device: as in `SiteTask`.
    """

    def __init__(
        self,
        fine_tune_epochs: int = 10,
        fine_tune_steps: int | None = None,
        batch_size: int = 64,
        local_lr: float = 0.01,
        optimizer: str = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        proximal: float = 0.0,
        train_only: str = "",
        patience: int = 3,
        local_only: bool = False,
        mixed_precision: bool = False,
        share_personal_models: bool = False,
        personal_dir: str = "personal_models",
        data: str = "data",
        model: str = "model",
        seed: str = "seed",
        device: str = "auto",
    ) -> None:
        super().__init__(data, model, seed, device)
        self.budget = LocalBudget(fine_tune_epochs, fine_tune_steps, batch_size)
        self.local_lr, self.optimizer = local_lr, LocalOptimizer(optimizer, momentum, weight_decay)
        self.proximal, self.train_only, self.patience = proximal, train_only, patience
        self.mixed_precision = mixed_precision
        self.local_only, self.share_personal_models, self.personal_dir = local_only, share_personal_models, personal_dir

    def check(self) -> None:
        """Budget, rates, patience, consent and pattern; whether the pattern matches is checked when the run starts."""
        self.budget.check("fine_tune_epochs", "fine_tune_steps")
        compile_pattern(self.train_only)
        for key in ("local_only", "mixed_precision", "share_personal_models"):
            if not isinstance(getattr(self, key), bool):
                raise BundleError(code="setting-value", key=key, expected="true or false", got=repr(getattr(self, key)))
        self.optimizer.check()
        check_rates(local_lr=self.local_lr, proximal=self.proximal)
        check_counts(patience=self.patience)
        if not (isinstance(self.personal_dir, str) and all(map(is_name, self.personal_dir.split("/")))):
            expected = "a folder below the site's workspace"
            raise BundleError(code="setting-value", key="personal_dir", expected=expected, got=repr(self.personal_dir))

    @fails_next_task
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Finds before any training what would make fine-tuning fail after all of it."""
        super().handle_event(event_type, fl_ctx)
        model = fl_ctx.get_engine().get_component(self.model_id) if event_type == EventType.START_RUN else None
        if model is not None:
            self.check()
            personal_model.check_replaceable(self._folder(fl_ctx), get_weights(model), fl_ctx.get_identity_name())
            with only_training(model, self.train_only):
                pass

    def try_out(self, site: Site, fl_ctx: FLContext) -> list[str]:
        """Trains on one small batch, and on one of the last's size; validation and test samples must be there."""
        need_samples(site.data, ["validation", "test"], "to choose the personal model by and to score it on")
        if self.local_only and not any(isinstance(executor, Trainer) for executor in executors_of(fl_ctx)):
            expected = "false, or a job that trains with custom.executors.trainer.Trainer, whose budget it repeats"
            raise BundleError(code="setting-value", key="local_only", expected=expected, got=True)
        if not site.data.size("train"):
            return []
        with only_training(site.model, self.train_only) as (parameters, frozen):

            def step(batch: Batch) -> float:
                return train(
                    site.model,
                    iter([batch]),
                    self.optimizer.build(parameters, self.local_lr),
                    mixed_precision=self.mixed_precision,
                    frozen=frozen,
                    after_backward=pull_towards(parameters, self.proximal),
                )

            data = trainable(site.model, site.data, self.budget.batch_size, site.device, frozen)
            try_steps(site.model, data, self.budget, site.device, step)
        return [f"fine_tune: {note}" for note in left_out(data)]

    def run(self, task_name: str, shareable: Shareable, site: Site, fl_ctx: FLContext, abort: Signal) -> Shareable:
        """`submit_model` or `fine_tune`."""
        folder = self._folder(fl_ctx)
        if task_name == AppConstants.TASK_SUBMIT_MODEL:
            if not self.share_personal_models:
                raise BundleError(
                    "personal models stay here: share_personal_models is off", code="not-shared", site=site.name
                )
            weights = personal_model.load_shared(folder, fl_ctx.get_job_id(), site.name)
            return DXO(DataKind.WEIGHTS, data=weights).to_shareable()
        received = from_shareable(shareable).data
        set_weights(site.model, received)
        try:
            return self._personalise(site, folder, shareable.get_header(ROUNDS), fl_ctx, abort)
        finally:
            set_weights(site.model, received)  # other tasks of this process share the component

    def _personalise(self, site: Site, folder: Path, rounds: int | None, fl_ctx: FLContext, abort: Signal) -> Shareable:
        personal_model.check_replaceable(folder, get_weights(site.model), site.name)
        scores: dict[str, Any] = {"global": _scores(site)}
        tuned = self._fine_tune(site, abort)
        scores["personal"] = _scores(site)
        scores |= {"best_epoch": tuned.best_epoch, "epochs": len(tuned.history) - 1}
        origin = {"job_id": fl_ctx.get_job_id(), "shared": self.share_personal_models}
        card = {
            "job": folder.name,
            **origin,
            "site": site.name,
            "rounds": rounds,
            "data": site.data.describe(),
            **scores,
        }
        personal_model.save(folder, get_weights(site.model), card)
        if self.local_only:
            try:
                scores["local_only"] = self._train_alone(site, abort)
            except BundleError as error:  # only the comparison is lost
                self.log_error(fl_ctx, error.coded())
        self._log(site, scores, fl_ctx)
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: site.data.size("train"), "test_samples": site.data.size("test")}
        return DXO(DataKind.METRICS, data=scores, meta=meta).to_shareable()

    def _folder(self, fl_ctx: FLContext) -> Path:
        """A place that outlives the job; FLARE's run folders do not.

        Raises:
            BundleError: the job's name, which whoever submits it chooses, would lead elsewhere.
        """
        meta = fl_ctx.get_prop(FLContextKey.JOB_META) or {}
        job = check_name(meta.get(JobMetaKey.JOB_NAME) or "job", "the job's name")
        return Path(fl_ctx.get_engine().get_workspace().get_root_dir()) / self.personal_dir / job

    def _fine_tune(self, site: Site, abort: Signal) -> FineTuned:
        seed = derive(site.seed, site.index, FINE_TUNE_STREAM)
        seed_everything(seed)
        with only_training(site.model, self.train_only) as (parameters, frozen):
            data = trainable(site.model, site.data, self.budget.batch_size, site.device, frozen)
            return fine_tune(
                site.model,
                site.data,
                self.budget.epochs(data, site.device, torch.Generator().manual_seed(seed)),
                self.optimizer.build(parameters, self.local_lr),
                site.device,
                patience=self.patience,
                frozen=frozen,
                mixed_precision=self.mixed_precision,
                after_backward=pull_towards(parameters, self.proximal),
                should_stop=lambda: bool(abort.triggered),
            )

    def _train_alone(self, site: Site, abort: Signal) -> dict[str, Any]:
        """The same start, settings and number of epochs as the rounds had, on this site's data alone."""
        training = read_training(site.run_dir, site.name)
        seed = derive(site.seed, site.index, LOCAL_ONLY_STREAM)
        seed_everything(seed)
        set_weights(site.model, load_weights(first_model_path(site.run_dir)))
        budget = LocalBudget(training.epochs, training.steps, training.batch_size)
        data = trainable(site.model, site.data, budget.batch_size, site.device)
        passes = budget.passes(data)
        rounds, warmup = training.rounds, training.lr_warmup_rounds
        lr = partial(learning_rate, training.local_lr, training.lr_schedule)
        fine_tune(
            site.model,
            site.data,
            budget.epochs(data, site.device, torch.Generator().manual_seed(seed)),
            training.optimizer.build(site.model.parameters(), training.local_lr),
            site.device,
            patience=10**9,
            frozen=[],
            accumulate_batches=training.accumulate_batches,
            mixed_precision=training.mixed_precision,
            class_weights=class_weights_of(training.class_weights, site.data, site.device),
            learning_rates=lambda epoch: lr(epoch * rounds // passes, rounds, warmup),
            should_stop=lambda: bool(abort.triggered),
        )
        return _scores(site)

    def _log(self, site: Site, scores: dict[str, Any], fl_ctx: FLContext) -> None:
        before, after = scores["global"]["val_accuracy"], scores["personal"]["val_accuracy"]
        self.log_info(
            fl_ctx,
            f"{site.name}  fine-tuned  val_accuracy {before:.3f} -> {after:.3f}  "
            f"best epoch {scores['best_epoch']} of {scores['epochs']}",
        )


def _scores(site: Site) -> dict[str, float]:
    """The model on the validation split, and on the test split, which nothing was chosen by."""
    splits = (evaluate_split(site.model, site.data, split, site.device) for split in ("validation", "test"))
    return {name: value for metrics in splits for name, value in metrics.items()}
