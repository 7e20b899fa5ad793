# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Client-side task filter that puts the global model together from what the site holds and what the server sent.

The sites' end of sparse downlink; `custom.filters.send_changes.SendChanges` is the server's. What a site holds lies in
its run folder, for its process may be another one in every round; which version that is, it says in every request for
a task, by a public property of its context.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import Filter
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.security.logging import secure_format_exception

from custom.checks.update import Origin
from custom.compression import changes
from custom.compression.changes import ChangesRejected, Held
from custom.errors import BundleError
from custom.keys import BASE_VERSION, HELD_VERSION, MODEL_VERSION, POSITIONS, TASK_REFUSED
from custom.panic import fails_next_task
from custom.printable import shown


class ApplyChanges(Filter):
    """Turns what SendChanges sent back into a task with the model; other tasks pass.

    Put it first in `task_data_filters` for the training tasks. If a task cannot be used it fails, and the site forgets
    what it holds, so that the next one brings the model.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: Any = None  # the file as it was when its version was announced

    @fails_next_task
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Announces what the site holds: at the start, and anew when the file is not the same any more."""
        if event_type in (EventType.START_RUN, EventType.BEFORE_PULL_TASK):
            stamp = _stamp(_path(fl_ctx))
            if event_type == EventType.START_RUN or stamp != self._seen:
                version = _version_in(_path(fl_ctx))
                if stamp and not version:
                    self.log_warning(fl_ctx, "held_model.pt is damaged; the next task will bring the whole model")
                self._announce(version, fl_ctx)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """A copy of the task with the model in it.

        Raises:
            PayloadRejected: the changes cannot be applied. FLARE sends no reason with the failed task, so it travels in
                the context, and SendChanges puts it into the reply.
        """
        version = shareable.get_header(MODEL_VERSION)
        if version is None:
            return shareable
        try:
            dxo = _whole(shareable, fl_ctx)
        except Exception as error:
            reason = _reason(error)
            if not getattr(error, "site", ""):
                reason = f"{fl_ctx.get_identity_name()} {reason}"
            self.log_error(fl_ctx, f"task refused, the next one will bring the whole model: {reason}")
            fl_ctx.set_prop(TASK_REFUSED, reason, private=False, sticky=False)
            self._drop(fl_ctx)
            raise
        self._keep(Held(version, dxo.data), BASE_VERSION in shareable[ReservedHeaderKey.HEADERS], fl_ctx)
        result = copy.copy(shareable)
        headers = shareable[ReservedHeaderKey.HEADERS]
        result[ReservedHeaderKey.HEADERS] = {k: v for k, v in headers.items() if k not in (MODEL_VERSION, BASE_VERSION)}
        return dxo.update_shareable(result)

    def _keep(self, held: Held, is_checked: bool, fl_ctx: FLContext) -> None:
        """Stores the model, if it is the one that the server knows by that version."""
        try:
            if not (is_checked or (changes.is_numeric(held.model) and changes.is_version(held.model, held.version))):
                remedy = "put SendChanges last at the server, and ApplyChanges first here"
                raise BundleError(
                    "another filter changes the model on its way", code="job-component", key="model", remedy=remedy
                )
            changes.save(_path(fl_ctx), held)
        except (BundleError, OSError, RuntimeError, TypeError) as error:  # the disk is full, or torch lacks the dtype
            self.log_warning(fl_ctx, f"the model is not kept, and the next task will bring all of it: {_reason(error)}")
            self._drop(fl_ctx)
        else:
            self._announce(held.version, fl_ctx)

    def _drop(self, fl_ctx: FLContext) -> None:
        try:
            _path(fl_ctx).unlink(missing_ok=True)
        except OSError as error:
            self.log_warning(fl_ctx, secure_format_exception(error))
        self._announce("", fl_ctx)

    def _announce(self, version: str, fl_ctx: FLContext) -> None:
        self._seen = _stamp(_path(fl_ctx))
        fl_ctx.set_prop(HELD_VERSION, version, private=False, sticky=True)


def _whole(shareable: Shareable, fl_ctx: FLContext) -> DXO:
    """The model of the task."""
    dxo, base = from_shareable(shareable), shareable.get_header(BASE_VERSION)
    if base is None:
        return dxo
    origin = Origin(fl_ctx.get_identity_name(), int(shareable.get_header(AppConstants.CURRENT_ROUND) or 0) + 1)
    meta = dict(dxo.meta or {})
    held = changes.load(_path(fl_ctx))
    if held.version != base:
        got, expected = shown(held.version), shown(base)
        raise ChangesRejected("base", origin, "changes of another model", key="held", expected=expected, got=got)
    version = shareable.get_header(MODEL_VERSION)
    model = changes.apply(held.model, dxo.data, meta.pop(POSITIONS, None), version, origin)
    return DXO(DataKind.WEIGHTS, data=model, meta=meta)


def _reason(error: Exception) -> str:
    return error.coded() if isinstance(error, BundleError) else secure_format_exception(error)


def _path(fl_ctx: FLContext) -> Path:
    return Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id())) / "held_model.pt"


def _stamp(path: Path) -> Any:
    """Tells whether the file is still the same; None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _version_in(path: Path) -> str:
    """What the file holds; an empty string if it is missing or damaged."""
    try:
        held = changes.load(path)
    except BundleError:
        return ""
    return held.version if changes.is_version(held.model, held.version) else ""
