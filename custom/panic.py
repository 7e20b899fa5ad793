# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a component raises when a run starts ends the job, with the sentence that says what is wrong.

FLARE only logs what `handle_event` raises, and a constructor that raises ends its process with exit code 0. So our
components look at their settings when the run starts, and every `handle_event` of ours has one of these decorators.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.app_event_type import AppEventType
from nvflare.security.logging import secure_format_exception

from custom.errors import BundleError
from custom.printable import printable

HandleEvent = Callable[[Any, str, FLContext], None]
STARTS = (EventType.START_RUN, EventType.START_WORKFLOW, AppEventType.ROUND_STARTED)
_START_ERRORS = "bundle_start_errors"  # private property of a site's contexts


def ends_job(handle_event: HandleEvent) -> HandleEvent:
    """For components of the server: what is raised at the start of a run, workflow or round ends the job."""

    @wraps(handle_event)
    def guarded(self: Any, event_type: str, fl_ctx: FLContext) -> None:
        try:
            handle_event(self, event_type, fl_ctx)
        except Exception as error:
            if event_type not in STARTS:
                raise
            self.system_panic(_reason(self, error, fl_ctx), fl_ctx)  # which FLARE logs

    return guarded


def fails_next_task(handle_event: HandleEvent) -> HandleEvent:
    """For components of a site: what is raised at the start of a run is the answer to the site's tasks.

    A panic there would stop the site's process, and the server would never learn why.
    """

    @wraps(handle_event)
    def guarded(self: Any, event_type: str, fl_ctx: FLContext) -> None:
        try:
            handle_event(self, event_type, fl_ctx)
        except Exception as error:
            if event_type != EventType.START_RUN:
                raise
            self.log_error(fl_ctx, _reason(self, error, fl_ctx))
            kept = [*fl_ctx.get_prop(_START_ERRORS, []), error]
            fl_ctx.set_prop(_START_ERRORS, kept, private=True, sticky=True)

    return guarded


def raise_start_error(fl_ctx: FLContext) -> None:
    """Raises the first error that a component of this site raised when the run started, if there is one."""
    for error in fl_ctx.get_prop(_START_ERRORS, []):
        raise error


def _reason(component: FLComponent, error: Exception, fl_ctx: FLContext) -> str:
    """One line about an error; the log has a stack trace as well if it is a fault of the code."""
    if isinstance(error, BundleError):
        return error.coded()
    reason = printable(f"{type(component).__name__}: {secure_format_exception(error)}")
    component.log_exception(fl_ctx, reason)
    return reason
