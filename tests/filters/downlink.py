# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Both ends of sparse downlink in one process, joined by FLARE's contexts and serialisation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_copy
from nvflare.apis.signal import Signal
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.apis.utils.fl_context_utils import gen_new_peer_ctx
from nvflare.apis.utils.task_utils import apply_filters
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.decomposers import common_decomposers
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator
from nvflare.fuel.utils import fobs
from nvflare.private.fed.client.client_engine_executor_spec import TaskAssignment
from nvflare.private.fed.client.client_runner import ClientRunner, ClientRunnerConfig, TaskRouter
from nvflare.private.privacy_manager import Scope

from custom.filters.apply_changes import ApplyChanges
from custom.filters.send_changes import SendChanges
from custom.keys import BASE_VERSION, HELD_VERSION
from tests.filters.flare_contexts import Server
from tests.support import JOB_ID, Engine


class Site:
    """A site's process; `start` begins another one in the same folder."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root / name, name
        self.executed: list[dict[str, np.ndarray]] = []
        self.start()

    def start(self) -> None:
        self.engine = Engine(self.root, {}, [self.name], identity=self.name)
        self.filter = ApplyChanges()
        with self.engine.new_context() as fl_ctx:
            self.filter.handle_event(EventType.START_RUN, fl_ctx)

    @property
    def file(self) -> Path:
        return self.engine.run_dir / "held_model.pt"

    def says(self) -> FLContext:
        """What arrives at the server of the context of the site's next request."""
        with self.engine.new_context() as fl_ctx:
            self.filter.handle_event(EventType.BEFORE_PULL_TASK, fl_ctx)
            return fobs.loads(fobs.dumps(gen_new_peer_ctx(fl_ctx)))

    @property
    def holds(self) -> str:
        return self.says().get_prop(HELD_VERSION)

    def apply(self, message: Shareable) -> Shareable:
        """What the executor gets."""
        with self.engine.new_context() as fl_ctx:
            filters = {"train/in": [self.filter]}
            return apply_filters(Scope.TASK_DATA_FILTERS_NAME, message, fl_ctx, filters, "train", "in")

    def run(self, message: Shareable, server: FLContext) -> tuple[Shareable, FLContext]:
        """What FLARE's ClientRunner makes of the task, and the context that goes with the reply."""
        router = TaskRouter()
        router.add_executor(["train"], _Recorder(self.executed))
        config = ClientRunnerConfig(router, {"train/in": [self.filter]}, {})
        self.engine.components = {"executor": router.route("train")}
        self.engine.register_aux_message_handler = lambda **_: None
        with self.engine.new_context() as fl_ctx:
            fl_ctx.set_peer_context(server)
            runner = ClientRunner({}, config, JOB_ID, self.engine)
            reply = runner._process_task(TaskAssignment("train", "task", message), fl_ctx)
            return reply, fobs.loads(fobs.dumps(gen_new_peer_ctx(fl_ctx)))


class _Recorder(Executor):
    """Keeps the models that it is shown, before its task and with it."""

    def __init__(self, seen: list[dict[str, np.ndarray]]) -> None:
        super().__init__()
        self.seen = seen

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.BEFORE_TASK_EXECUTION:
            self.seen.append(from_shareable(fl_ctx.get_prop(FLContextKey.TASK_DATA)).data)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        self.seen.append(from_shareable(shareable).data)
        return Shareable()


class Downlink:
    """A server in the middle of ScatterAndGather."""

    def __init__(self, root: Path, model: dict[str, np.ndarray], **arguments: Any) -> None:
        self.root, self.sites, self.send = root, {}, SendChanges(**arguments)
        self.server, self.round, self.workflow = Server(model), -1, "train_1"
        flare_decomposers.register()
        common_decomposers.register()
        self.start()
        self.next_round({})

    def start(self) -> None:
        """The server's process, the same or another."""
        self.send.handle_event(EventType.START_RUN, self.server.context())

    @property
    def model(self) -> dict[str, np.ndarray]:
        return self.server.context().get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]

    def next_round(self, update: dict[str, Any]) -> None:
        """Adds to the model as FLARE does, and makes the task that all sites share, as it does (wf_comm_server.py)."""
        fl_ctx = self.server.context()
        FullModelShareableGenerator().shareable_to_learnable(DXO(DataKind.WEIGHT_DIFF, update).to_shareable(), fl_ctx)
        self.enter(self.round + 1, self.workflow)

    def enter(self, current_round: int, workflow: str) -> None:
        self.round, self.workflow = current_round, workflow
        self.server.enter(current_round, workflow)
        task = DXO(DataKind.WEIGHTS, data=self.model, meta={"note": [1]}).to_shareable()
        task.set_header(AppConstants.CURRENT_ROUND, current_round)
        task.add_cookie(AppConstants.CONTRIBUTION_ROUND, current_round)
        self.broadcast = copy.deepcopy(task)

    def site(self, name: str = "site-1") -> Site:
        return self.sites.setdefault(name, Site(self.root, name))

    def task(self) -> Shareable:
        """One site's copy, before filters."""
        task = make_copy(self.broadcast)
        task.add_cookie(ReservedHeaderKey.WORKFLOW, self.workflow)
        return task

    def hand_out(self, name: str = "site-1", task: Shareable | None = None) -> Shareable:
        """What is sent to a site that asks for a task."""
        fl_ctx = self.server.context(name)
        fl_ctx.set_peer_context(self.site(name).says())
        filters = {"train/out": [self.send]}
        scope = Scope.TASK_DATA_FILTERS_NAME
        message = apply_filters(scope, task or self.task(), fl_ctx, filters, "train", "out")
        fl_ctx.set_prop(FLContextKey.TASK_DATA, message, private=True, sticky=False)
        self.last = fl_ctx
        return message

    def deliver(self, name: str = "site-1") -> Shareable:
        """A round of one site: the message as it went over the wire; checks that the site got the very model."""
        message = self.hand_out(name)
        received = self.site(name).apply(fobs.loads(fobs.dumps(message)))
        assert_same(from_shareable(received).data, self.model)
        return message


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert (got[name].dtype, got[name].shape) == (value.dtype, value.shape)
        assert got[name].tobytes() == value.tobytes(), name


def is_whole(message: Shareable) -> bool:
    return message.get_header(BASE_VERSION) is None


def add(entry: int, size: int = 4) -> dict[str, np.ndarray]:
    """An update of one entry."""
    return {"w": np.eye(1, size, entry, dtype=np.float32)[0]}
