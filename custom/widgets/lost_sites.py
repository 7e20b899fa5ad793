# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Lets every workflow know which sites were lost; FLARE 2.9.0 tells only the one that runs when it happens.

Each workflow of FLARE has a communicator with a watch list of its own, and a lost site is reported once: the workflows
after that would wait for it until their time-outs, ScatterAndGather in every round.
"""

from __future__ import annotations

from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.widgets.widget import Widget

from custom import progress
from custom.panic import ends_job

LOST = "the server had no sign of life of it: what is missing of it from here on was not waited for"
PROCESSES = "bundle_lost_sites"  # property of the contexts in the simulator: why, by site whose process has ended
BACK = "the server hears of it again: it takes part from here on"


class LostSites(Widget):
    """Listens to the server's events; the report warns of a site that was lost, and of one that came back."""

    def __init__(self) -> None:
        super().__init__()
        self._previous: Controller | None = None

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Dispatches FLARE's events."""
        if event_type == EventType.START_WORKFLOW:
            self._hand_over(fl_ctx)
        elif event_type == EventType.CLIENT_DISCONNECTED:
            self._lost(str(fl_ctx.get_prop(FLContextKey.DISCONNECTED_CLIENT_NAME)), fl_ctx)
        elif event_type == EventType.CLIENT_RECONNECTED:
            self._warn(fl_ctx.get_prop(FLContextKey.RECONNECTED_CLIENT_NAME), BACK, fl_ctx)

    def _hand_over(self, fl_ctx: FLContext) -> None:
        """One watch list for all workflows of the job: FLARE takes a site off it that is heard of again."""
        workflow = fl_ctx.get_engine().get_component(str(fl_ctx.get_prop(FLContextKey.WORKFLOW)))
        if not isinstance(workflow, Controller):
            return
        if self._previous is not None:
            before, now = self._previous.communicator, workflow.communicator
            now._dead_clients, now._dead_clients_lock = before._dead_clients, before._dead_clients_lock
        self._previous = workflow

    def _lost(self, site: str, fl_ctx: FLContext) -> None:
        """An error where it is known that the site's process has ended; else all that is known is its silence."""
        reason = (fl_ctx.get_prop(PROCESSES) or {}).get(site)
        if reason is None:
            self._warn(site, LOST, fl_ctx)
            return
        workflow = str(fl_ctx.get_prop(FLContextKey.WORKFLOW))
        progress.append(_run_dir(fl_ctx), "site_error", site=site, task=workflow, reason=reason)

    def _warn(self, site: str, reason: str, fl_ctx: FLContext) -> None:
        self.log_warning(fl_ctx, f"{site}: {reason}")
        progress.append(_run_dir(fl_ctx), "warning", reason=f"{site}: {reason}")


def _run_dir(fl_ctx: FLContext) -> Path:
    return Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))
