# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Both ends of sparse exchange in one process, with a new filter, as in a new process, in every round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.utils.task_utils import apply_filters
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.decomposers import common_decomposers
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator
from nvflare.fuel.utils import fobs
from nvflare.private.privacy_manager import Scope

from custom.aggregators.sparse import SparseAggregator
from custom.filters.check_update import CheckUpdate
from custom.filters.sparsify import Sparsify
from tests.filters.flare_contexts import Server, submission
from tests.support import Engine

HALF: dict[str, Any] = {"keep_fraction": 0.5}


class Federation:
    """A server and its sites, joined by FLARE's contexts and its serialisation."""

    def __init__(self, root: Path, model: dict[str, np.ndarray], absent: str = "zero_update") -> None:
        self.server, self.check, self.aggregator = Server(model), CheckUpdate(), SparseAggregator(absent)
        self.generator = FullModelShareableGenerator()
        self.root, self.engines = root, {}
        self.round, self.scope = 0, Scope()  # the sites' privacy filters
        common_decomposers.register()

    @property
    def model(self) -> dict[str, np.ndarray]:
        return self.server.context().get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]

    def task(self, site: str) -> Shareable:
        task = DXO(DataKind.WEIGHTS, data=dict(self.model)).to_shareable()
        task.set_header(AppConstants.CURRENT_ROUND, self.round)
        task.add_cookie(AppConstants.CONTRIBUTION_ROUND, self.round)
        fl_ctx = self.server.context(site)
        task.add_cookie(ReservedHeaderKey.WORKFLOW, fl_ctx.get_prop(FLContextKey.WORKFLOW))
        fl_ctx.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
        for component in (self.aggregator, self.check):
            component.handle_event(EventType.BEFORE_TASK_DATA_FILTER, fl_ctx)
        return task

    def train(self, site: str, update: dict | Shareable, weight: float = 1, **arguments: Any) -> Shareable:
        """What the site sends for an update of its executor, as the server receives it."""
        arguments = HALF | arguments
        if site not in self.engines:
            self.engines[site] = Engine(self.root / site, {}, [site], identity=site)
        task = arguments.pop("task", None) or self.task(site)
        result = update if isinstance(update, Shareable) else submission(site, self.round, update, weight)
        sparsify = Sparsify(**arguments)
        with self.engines[site].new_context() as fl_ctx:
            fl_ctx.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
            sparsify.handle_event(EventType.BEFORE_TASK_EXECUTION, fl_ctx)
            fl_ctx.set_prop(FLContextKey.TASK_DATA, None, private=True, sticky=False)
            fl_ctx.set_prop(FLContextKey.SCOPE_OBJECT, self.scope, private=True, sticky=False)
            filters = {"train/out": [sparsify]}
            reply = apply_filters(Scope.TASK_RESULT_FILTERS_NAME, result, fl_ctx, filters, "train", "out")
        return reply if reply is result else fobs.loads(fobs.dumps(reply))

    def deliver(self, site: str, result: Shareable) -> Shareable:
        fl_ctx = self.server.context(site)
        filters = {"train/in": [self.check]}
        result = apply_filters(Scope.TASK_RESULT_FILTERS_NAME, result, fl_ctx, filters, "train", "in")
        if result.get_return_code() == ReturnCode.OK:
            assert self.aggregator.accept(result, fl_ctx)
        return result

    def end_round(self) -> dict[str, np.ndarray]:
        fl_ctx = self.server.context()
        result = self.aggregator.aggregate(fl_ctx)
        self.generator.shareable_to_learnable(result, fl_ctx)
        self.round += 1
        self.server.enter(self.round)
        return from_shareable(result).data
