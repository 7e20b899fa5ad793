# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What all executors share: finding the site's components, and turning errors into replies the server can log."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.security.logging import secure_format_exception
from torch import nn

from custom.data.folders import overridden
from custom.data.site_data import DataComponent, SiteData
from custom.errors import BundleError
from custom.learning.device import choose_device, place, share_cores
from custom.learning.rehearsal import named_as_unfit, undisturbed
from custom.learning.train import Aborted
from custom.origin import check_origin
from custom.panic import fails_next_task, raise_start_error

_EXECUTORS = "bundle_executors"  # private property of a site's contexts


@dataclass(frozen=True)
class Site:
    """What an executor knows of the place it runs at."""

    name: str
    index: int  # position in the sorted roster
    seed: int
    data: SiteData
    model: nn.Module
    device: torch.device
    run_dir: Path  # this job's folder at this site


@lru_cache(maxsize=1)
def _site_data(component: DataComponent, name: str, roster: tuple[str, ...], seed: int) -> SiteData:
    """One copy of the data in a process, however many executors use it."""
    overridden.clear()
    try:
        return component.site(name, roster, seed)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        correct = "correct the path in the data component's settings, or put the file there"
        raise BundleError(
            "the site's data cannot be read",
            code="file-unusable",
            site=name,
            key=str(error.filename or ""),
            got=error.strerror or str(error),
            remedy=correct if missing else "give the user that runs this site the right to read it",
        ) from error


class SiteTask(Executor):
    """Base of the executors of this bundle.

    Args:
        data: id of the data component (`custom.data.site_data.DataComponent`).
        model: id of the model component (a torch module).
        seed: id of the seed component (`custom.learning.seed.Seed`).
        device: `auto` or a torch device; the environment variable FLARE_DEVICE of a site overrides it.
    """

    def __init__(self, data: str = "data", model: str = "model", seed: str = "seed", device: str = "auto") -> None:
        super().__init__()
        self.data_id, self.model_id, self.seed_id, self.device = data, model, seed, device

    @abstractmethod
    def run(self, task_name: str, shareable: Shareable, site: Site, fl_ctx: FLContext, abort: Signal) -> Shareable:
        """Does the task.

        Raises:
            BundleError: it cannot be done; the message reaches the server's log.
        """

    def check(self) -> None:
        """Looks at the settings; called before every task, and by `bundle export` before a job leaves.

        Constructors only store: an error there ends a FLARE process with a stack trace and exit code 0.

        Raises:
            BundleError: a setting is out of range.
        """

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """FLARE's entry: `run`, with every error turned into a reply that says what happened."""
        try:
            check_code(fl_ctx)
            raise_start_error(fl_ctx)
            self.check()
            return self.run(task_name, shareable, self.site(fl_ctx), fl_ctx, abort_signal)
        except Aborted:
            return make_reply(ReturnCode.TASK_ABORTED)
        except BundleError as error:
            reason = error.coded() if error.site else f"{fl_ctx.get_identity_name()} {error.coded()}"
            self.log_error(fl_ctx, f"{task_name}: {reason}")
        except Exception as error:
            self.log_exception(fl_ctx, f"{task_name}: {secure_format_exception(error)}")
            reason = secure_format_exception(error)
        return make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: reason})

    @fails_next_task
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Makes itself known for `rehearse`."""
        if event_type == EventType.START_RUN:
            fl_ctx.set_prop(_EXECUTORS, [*executors_of(fl_ctx), self], private=True, sticky=True)

    def rehearse(self, fl_ctx: FLContext) -> list[str]:
        """Tries before the first round what `run` will do, on a few samples; see `try_out`.

        Returns:
            What the server's log and the report should say.

        Raises:
            BundleError: it would fail.
        """
        self.check()
        site = self.site(fl_ctx)
        with undisturbed(site.model), named_as_unfit(site.model, f"a model that {type(self).__name__} can use"):
            return self.try_out(site, fl_ctx)

    def try_out(self, site: Site, fl_ctx: FLContext) -> list[str]:
        """What `rehearse` does of this task; the model is as it was built, and will be that again."""
        return []

    def site(self, fl_ctx: FLContext) -> Site:
        """The site with this executor's components; raises BundleError if one is missing."""
        engine = fl_ctx.get_engine()
        name = fl_ctx.get_identity_name()
        found = {key: needed_component(fl_ctx, key) for key in (self.data_id, self.model_id, self.seed_id)}
        clients = (fl_ctx.get_prop(FLContextKey.JOB_META) or {}).get(JobMetaKey.JOB_CLIENTS) or []
        roster = tuple(sorted(client["name"] for client in clients))
        if name not in roster:
            raise BundleError(
                "is not among the sites that this job was started with",
                code="site-not-in-roster",
                site=name,
                key="job_clients",
                expected=", ".join(roster) or "a roster in the job's meta",
                got=name,
                remedy="submit the job again, so that the data are split over all sites",
            )
        if fl_ctx.get_prop(FLContextKey.SIMULATE_MODE):  # all sites are on this machine
            share_cores(len(roster))
        seed = found[self.seed_id].seed
        device = choose_device(self.device)
        return Site(
            name=name,
            index=roster.index(name),
            seed=seed,
            data=_site_data(found[self.data_id], name, roster, seed),
            model=place(found[self.model_id], device),
            device=device,
            run_dir=Path(engine.get_workspace().get_run_dir(fl_ctx.get_job_id())),
        )


def executors_of(fl_ctx: FLContext) -> list[SiteTask]:
    """The executors of this bundle that the client's configuration binds to tasks."""
    found: list[SiteTask] = fl_ctx.get_prop(_EXECUTORS, [])
    return found


def needed_component(fl_ctx: FLContext, component_id: str) -> Any:
    """The component with that id; raises BundleError if there is none."""
    component = fl_ctx.get_engine().get_component(component_id)
    if component is None:
        raise BundleError(
            code="job-component",
            site=fl_ctx.get_identity_name(),
            key=component_id,
            expected="a component with this id in config_fed_client.json",
            got="none",
        )
    return component


def check_code(fl_ctx: FLContext) -> None:
    """Raises BundleError where code runs in the place of the job's own, see `custom.origin.check_origin`."""
    check_origin(fl_ctx.get_engine().get_workspace().get_app_custom_dir(fl_ctx.get_job_id()))
