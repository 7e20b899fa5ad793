# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A Trainer that raises at one site, in its learning or in the executor; put into app/custom of an exported job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from custom.executors.site_task import Site
from custom.executors.trainer import Trainer


class Raising(Trainer):
    """Good but in two rounds.

    Args:
        site: where.
        learner_round: counted from 1; raises where SiteTask catches it.
        executor_round: counted from 1; raises past that, so that FLARE catches it.
        trainer: arguments of the Trainer.
    """

    def __init__(self, site: str, learner_round: int = 0, executor_round: int = 0, **trainer: Any) -> None:
        super().__init__(**trainer)
        self.where, self.learner_round, self.executor_round = site, learner_round, executor_round

    def run(self, task_name: str, shareable: Shareable, site: Site, fl_ctx: FLContext, abort: Signal) -> Shareable:
        """As Trainer, in other rounds."""
        if self._is_now(self.learner_round, shareable, fl_ctx):
            raise RuntimeError("the learner has raised")
        return super().run(task_name, shareable, site, fl_ctx, abort)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """As Trainer, in other rounds."""
        if self._is_now(self.executor_round, shareable, fl_ctx):
            raise RuntimeError("the executor has raised")
        return super().execute(task_name, shareable, fl_ctx, abort_signal)

    def _is_now(self, number: int, shareable: Shareable, fl_ctx: FLContext) -> bool:
        return (
            fl_ctx.get_identity_name() == self.where and shareable.get_header(AppConstants.CURRENT_ROUND) == number - 1
        )


def put_in(job: Path, **arguments: Any) -> Path:
    """Makes it the exported job's executor of `train`, with the arguments of the Trainer that was it."""
    shutil.copy(__file__, job / "app" / "custom")
    path = job / "app" / "config" / "config_fed_client.json"
    config = json.loads(path.read_text())
    trainer = config["executors"][0]["executor"]
    trainer.update(path="raising.Raising", args={**trainer["args"], **arguments})
    path.write_text(json.dumps(config))
    return job
