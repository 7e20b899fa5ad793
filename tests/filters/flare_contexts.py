# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Real FLContexts and Shareables as FLARE's server makes them for one submission; only the engine is a stand-in."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.fl_constant import FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants


class Engine:
    """Records events instead of delivering them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        self.events.append((event_type, fl_ctx.get_prop(FLContextKey.EVENT_DATA)))


class Server:
    """A server process in the middle of a workflow."""

    def __init__(self, weights: dict[str, np.ndarray], current_round: int = 0, workflow: str = "train_1") -> None:
        self.engine = Engine()
        self.manager = FLContextManager(engine=self.engine, identity_name="server", job_id="job")
        self.task_ids = itertools.count()
        self.enter(current_round, workflow)
        self.set(AppConstants.GLOBAL_MODEL, make_model_learnable(weights, {}))

    def set(self, key: str, value: Any) -> None:
        self.manager.new_context().set_prop(key, value, private=True, sticky=True)

    def enter(self, current_round: int, workflow: str = "train_1") -> None:
        self.set(FLContextKey.WORKFLOW, workflow)
        self.set(AppConstants.CURRENT_ROUND, current_round)

    def context(self, site: str = "", task_id: str = "", task_name: str = "train") -> FLContext:
        """A context for one submission of `site`, or one for the workflow itself."""
        fl_ctx = self.manager.new_context()
        if site:
            fl_ctx.set_peer_context(FLContextManager(identity_name=site, job_id="job").new_context())
            task_id = task_id or f"task-{next(self.task_ids)}"
            fl_ctx.set_prop(FLContextKey.TASK_ID, task_id, private=True, sticky=False)
            fl_ctx.set_prop(FLContextKey.TASK_NAME, task_name, private=True, sticky=False)
        return fl_ctx


def submission(
    site: str, current_round: Any, diff: dict[str, Any], weight: Any = 1, metrics: Any = None, **dxo: Any
) -> Shareable:
    """What a site sends, with the peer props that ServerRunner adds on arrival."""
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: weight}
    if metrics is not None:
        meta[MetaKey.INITIAL_METRICS] = metrics
    result = DXO(dxo.get("data_kind", DataKind.WEIGHT_DIFF), data=diff, meta=meta).to_shareable()
    result.add_cookie(AppConstants.CONTRIBUTION_ROUND, current_round)
    result.set_return_code(ReturnCode.OK)
    result.set_peer_props({ReservedKey.IDENTITY_NAME: site})
    return result
