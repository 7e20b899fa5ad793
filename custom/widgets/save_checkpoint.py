# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Saves what a continuation of the job needs after every round, and gives it back to one: see custom.checkpoint.

FLARE 2.9.0 keeps no snapshots. `python -m bundle resume` makes the continuation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.widgets.intime_model_selector import IntimeModelSelector
from nvflare.fuel.utils.config_factory import ConfigFactory
from nvflare.widgets.widget import Widget
from torch import nn

from custom import checkpoint, progress
from custom.checkpoint import Checkpoint
from custom.errors import BundleError
from custom.keys import ROUNDS_BEFORE
from custom.panic import ends_job


class SaveCheckpoint(Widget):
    """Listens to the server's events; put it after all other components.

    Args:
        continue_from: a checkpoint in the job's app folder, whose state the job takes over; `bundle resume` sets it.
    """

    def __init__(self, continue_from: str = "") -> None:
        super().__init__()
        self.continue_from = continue_from
        self._origin: Checkpoint | None = None
        self._ids: list[str] = []
        self._rounds: dict[str, int] = {}
        self._best: dict[str, Any] | None = None

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Dispatches FLARE's events."""
        if event_type == EventType.START_RUN:
            self._job_started(fl_ctx)
        elif event_type == EventType.START_WORKFLOW and self._origin is not None:  # all have forgotten earlier runs
            self._give_back(self._origin, fl_ctx)
            self._origin = None
        elif event_type == AppEventType.GLOBAL_BEST_MODEL_AVAILABLE:
            self._best = checkpoint.plain_best(fl_ctx.get_prop(AppConstants.METRICS_SELECTION_INFO)) or self._best
        elif event_type == AppEventType.ROUND_DONE:
            self._save(fl_ctx)

    def _job_started(self, fl_ctx: FLContext) -> None:
        folder = fl_ctx.get_engine().get_workspace().get_app_config_dir(fl_ctx.get_job_id())
        config = ConfigFactory.load_config("config_fed_server.json", [folder])
        parts = config.to_dict().get("components", []) if config else []
        self._ids = [str(part["id"]) for part in parts if part.get("id")]
        self._rounds, self._best = {}, None
        if self.continue_from:
            self._origin = checkpoint.load(Path(fl_ctx.get_prop(FLContextKey.APP_ROOT)) / self.continue_from)

    def _give_back(self, origin: Checkpoint, fl_ctx: FLContext) -> None:
        """To the components their state, to the context and to the report what they would know."""
        engine = fl_ctx.get_engine()
        for name, state in origin.states.items():
            component = engine.get_component(name)
            try:
                if isinstance(component, IntimeModelSelector):
                    component.best_val_metric = float(state["best_val_metric"])
                    component.best_raw_val_metric = _plain(state["best_raw_val_metric"])
                elif _has_state(component):
                    component.load_state_dict(state)
            except (BundleError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                self.system_panic(f"{self.continue_from}: the state of {name} does not fit: {error}", fl_ctx)
        self._rounds, self._best = dict(origin.rounds), origin.best
        fl_ctx.set_prop(ROUNDS_BEFORE, dict(origin.rounds), private=True, sticky=True)
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, origin.round - 1, private=True, sticky=True)
        fields = {"workflow": origin.workflow, "round": origin.round, "rounds": origin.rounds}
        progress.append(_run_dir(fl_ctx), "continued", job_id=origin.job_id, **fields)
        if origin.best:
            progress.append(_run_dir(fl_ctx), "best", **origin.best)
        self.log_info(fl_ctx, f"continues job {origin.job_id} after round {origin.round} of {origin.workflow}")

    def _save(self, fl_ctx: FLContext) -> None:
        workflow = str(fl_ctx.get_prop(FLContextKey.WORKFLOW, ""))
        self._rounds[workflow] = fl_ctx.get_prop(AppConstants.CURRENT_ROUND) + 1
        state = Checkpoint(
            job_id=str(fl_ctx.get_job_id()),
            workflow=workflow,
            round=self._rounds[workflow],
            num_rounds=fl_ctx.get_prop(AppConstants.START_ROUND, 0) + fl_ctx.get_prop(AppConstants.NUM_ROUNDS),
            rounds=dict(self._rounds),
            model=fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS],
            states=self._states(fl_ctx),
            best=self._best,
        )
        try:
            checkpoint.save(_run_dir(fl_ctx) / checkpoint.FILE_NAME, state)
        except (BundleError, OSError, RuntimeError) as error:
            kept = f"{checkpoint.FILE_NAME} of an earlier round stays, and bundle resume would go on from there"
            self.log_warning(fl_ctx, f"round {state.round} of {workflow} could not be saved: {error}; {kept}")

    def _states(self, fl_ctx: FLContext) -> dict[str, Any]:
        states: dict[str, Any] = {}
        for name in self._ids:
            component = fl_ctx.get_engine().get_component(name)
            if isinstance(component, IntimeModelSelector):
                states[name] = {
                    "best_val_metric": float(component.best_val_metric),
                    "best_raw_val_metric": _plain(component.best_raw_val_metric),
                    "negate_key_metric": bool(component.negate_key_metric),
                }
            elif _has_state(component):
                states[name] = component.state_dict()
        return states


def _has_state(component: Any) -> bool:
    has = all(callable(getattr(component, name, None)) for name in ("state_dict", "load_state_dict"))
    return has and not isinstance(component, nn.Module)


def _plain(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float | np.number) else None


def _run_dir(fl_ctx: FLContext) -> Path:
    return Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))
