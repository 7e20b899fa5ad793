# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FLARE's own classes put together in one process: what a component meets when FLARE calls it, without the network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.impl.controller import Controller
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.workspace import Workspace

JOB_ID = "job"
Answer = Callable[[str, str, Shareable], Shareable | None]


class TinyData:
    """A data component: points of two features, class 1 where the first is positive; the same at every site.

    Attributes:
        inputs, labels: of `train`; the other splits have others, see `split`.
    """

    def __init__(self, dataset: str = "points", samples: int = 12) -> None:
        self.dataset, self.samples = dataset, samples

    def site(self, name: str, roster: tuple[str, ...], seed: int) -> TinyData:
        self.seed = seed
        self.inputs, self.labels = self.split("train")
        return self

    def split(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(self.seed + 1000 * ("train", "validation", "test").index(name))
        inputs = torch.randn(self.samples, 2, generator=generator)
        return inputs, (inputs[:, 0] > 0).long()

    def describe(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "embedded": False, "num_classes": 2, "input_shape": [2]}

    def size(self, split: str) -> int:
        return self.samples

    def counts(self) -> dict[str, int]:
        return {"train": self.samples, "validation": self.samples, "test": self.samples, "points": self.samples}

    def batches(self, split, batch_size, device, generator=None):  # type: ignore[no-untyped-def]
        order = torch.arange(self.samples) if generator is None else torch.randperm(self.samples, generator=generator)
        for part in order.split(batch_size):
            inputs, labels = self.split(split)
            yield inputs[part], labels[part]


class Engine:
    """Answers what components ask of an engine; events reach every component, as in FLARE."""

    def __init__(self, root: Path, components: dict[str, Any], sites: list[str], identity: str = "server") -> None:
        self.components, self.sites = components, sites
        for folder in ("startup", "local", JOB_ID):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self.workspace = Workspace(root_dir=str(root), site_name=identity)
        self.run_dir = Path(self.workspace.get_run_dir(JOB_ID))
        self.run_dir.mkdir(exist_ok=True)
        meta = {JobMetaKey.JOB_NAME: "test", JobMetaKey.JOB_CLIENTS: [{"name": site} for site in sites]}
        self.contexts = FLContextManager(engine=self, identity_name=identity, job_id=JOB_ID, public_stickers={})
        self.events: list[tuple[str, Any]] = []
        self.abort_signal = Signal()
        with self.new_context() as fl_ctx:
            fl_ctx.set_prop(FLContextKey.JOB_META, meta, private=True, sticky=True)
            fl_ctx.set_prop(FLContextKey.APP_ROOT, str(root), private=True, sticky=True)

    def new_context(self) -> FLContext:
        return self.contexts.new_context()

    def get_component(self, component_id: str) -> Any:
        return self.components.get(component_id)

    def get_workspace(self) -> Workspace:
        return self.workspace

    def get_clients(self) -> list[Client]:
        return [Client(site, f"token-{site}") for site in self.sites]

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        self.events.append((event_type, fl_ctx.get_prop(FLContextKey.EVENT_DATA)))
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            self.abort_signal.trigger(True)
        for component in self.components.values():
            if isinstance(component, FLComponent):
                component.handle_event(event_type, fl_ctx)

    def panic(self) -> str:
        """The reason of the first fatal error, or an empty string."""
        return next((str(data) for kind, data in self.events if kind == EventType.FATAL_SYSTEM_ERROR), "")


def run_controller(engine: Engine, controller: Controller, answer: Answer, limit_s: float = 200) -> None:
    """Runs one workflow with FLARE's communicator; each site is a thread that answers the tasks it gets.

    Args:
        engine: the server's.
        controller: the workflow.
        answer: called with (site, task name, task data); None means that the site never answers.
        limit_s: fails the test when the workflow takes longer, which only one that hangs does.
    """
    controller.set_communicator(WFCommServer(task_check_period=0.01))
    with engine.new_context() as fl_ctx:
        controller.communicator.initialize_run(fl_ctx)
        controller.initialize(fl_ctx)
    done = threading.Event()

    def site_thread(client: Client) -> None:
        while not done.is_set():
            with engine.new_context() as fl_ctx:
                name, task_id, data = controller.communicator.process_task_request(client, fl_ctx)
                reply = answer(client.name, name, data) if name else None
                if reply is not None:
                    controller.communicator.process_submission(client, name, task_id, reply, fl_ctx)
            time.sleep(0.01)

    threads = [threading.Thread(target=site_thread, args=(client,), daemon=True) for client in engine.get_clients()]
    for thread in threads:
        thread.start()
    failures: list[BaseException] = []
    flow = threading.Thread(target=_control_flow, args=(engine, controller, failures), daemon=True)
    flow.start()
    flow.join(limit_s)
    done.set()
    assert not flow.is_alive(), f"the workflow is still running after {limit_s} s"
    assert failures == []
    with engine.new_context() as fl_ctx:
        controller.stop_controller(fl_ctx)
        controller.communicator.finalize_run(fl_ctx)


def _control_flow(engine: Engine, controller: Controller, failures: list[BaseException]) -> None:
    """As FLARE does: also after a panic in start_controller."""
    try:
        with engine.new_context() as fl_ctx:
            controller.control_flow(engine.abort_signal, fl_ctx)
    except Exception as error:
        failures.append(error)


def arrays(**values: Any) -> dict[str, np.ndarray]:
    """float32 arrays by name; a double underscore stands for a dot."""
    return {name.replace("__", "."): np.asarray(value, dtype=np.float32) for name, value in values.items()}
