# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Server-side task filter that sends each site the entries in which the global model differs from what the site holds.

Binds `custom.compression.changes` to FLARE. Any job adopts it with this filter, last in `task_data_filters` of its
training task at the server, and `custom.filters.apply_changes.ApplyChanges`, first in the sites'. A site says in every
request for a task which version it holds; if it says none, or one that is not known here any more, it gets the model.
"""

from __future__ import annotations

import copy
import secrets
import threading
from typing import Any

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.app_common.app_constant import AppConstants

from custom.checks.update import Tensors
from custom.compression import changes
from custom.compression.changes import Changes
from custom.errors import BundleError
from custom.keys import BASE_VERSION, HELD_VERSION, MODEL_VERSION, POSITIONS, TASK_REFUSED
from custom.panic import ends_job
from custom.printable import shown

DOWNLINKS = ("sparse", "dense")


class SendChanges(Filter):
    """Replaces the WEIGHTS of a task by their changes, for a site that can make the same model of them.

    Args:
        downlink: `sparse`, or `dense`: every site gets the model, as without this filter.
        history: how many earlier models are kept, in memory, for sites that missed rounds.
    """

    def __init__(self, downlink: str = "sparse", history: int = 1) -> None:
        super().__init__()
        self.downlink, self.history = downlink, history
        self._lock = threading.Lock()  # sites are served in threads of their own; the first one does the work for all
        self._forget()

    def _forget(self) -> None:
        self._token = secrets.token_hex(8)  # a version of another run of this server is no version of this one
        self._source: tuple[Any, ...] = ()  # workflow and round of the current model
        self._current = ""
        self._models: dict[str, dict[str, Any]] = {}  # by version, the current one last
        self._changes: dict[str, Changes | None] = {}  # to the current model, by version

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        if self.downlink not in DOWNLINKS:
            raise BundleError(
                code="setting-value",
                key="SendChanges downlink",
                expected=" or ".join(DOWNLINKS),
                got=shown(self.downlink),
            )
        if isinstance(self.history, bool) or not isinstance(self.history, int) or self.history < 1:
            raise BundleError(
                code="setting-value",
                key="SendChanges history",
                expected="a whole number from 1",
                got=shown(self.history),
            )

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Starts afresh with the run, if the settings are good; says why a site could not use a task."""
        if event_type == EventType.START_RUN:
            self.check()
            with self._lock:
                self._forget()
        elif event_type == EventType.BEFORE_TASK_RESULT_FILTER:
            result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
            reason = fl_ctx.get_peer_context().get_prop(TASK_REFUSED)
            if reason and result.get_return_code() == ReturnCode.TASK_DATA_FILTER_ERROR:
                result.set_header(ReservedHeaderKey.ERROR, str(reason))

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The task as it is to be sent to the site that asked: a new message, for all sites share one."""
        dxo = _weights(shareable)
        if self.downlink == "dense" or dxo is None:
            return shareable
        peer = fl_ctx.get_peer_context()
        held = peer.get_prop(HELD_VERSION) if peer else None
        workflow = shareable.get_cookie(ReservedHeaderKey.WORKFLOW)
        source = (workflow, shareable.get_header(AppConstants.CURRENT_ROUND))
        with self._lock:
            version = self._enter(source, dxo.data)
            found = self._changes_since(held) if isinstance(held, str) else None
        headers = {MODEL_VERSION: version}
        if found is not None:
            headers[BASE_VERSION] = str(held)
            dxo = DXO(DataKind.WEIGHTS, data=dict(found.values), meta={**(dxo.meta or {}), POSITIONS: found.positions})
        result = copy.copy(shareable)
        result[ReservedHeaderKey.HEADERS] = shareable[ReservedHeaderKey.HEADERS] | headers
        return dxo.update_shareable(result)

    def _enter(self, source: tuple[Any, ...], model: Tensors) -> str:
        """The version of the model, which becomes the current one; what is older than `history` is dropped."""
        current = self._models.get(self._current)
        if current is None or source != self._source or not _is_same(current, model):
            version = changes.name_version(model, self._token, *source)
            self._models.pop(version, None)
            self._models[version] = dict(model)
            for old in list(self._models)[: -self.history - 1]:
                del self._models[old]
            self._source, self._current, self._changes = source, version, {}
        return self._current

    def _changes_since(self, held: str) -> Changes | None:
        if held in self._models and held not in self._changes:
            # Models are kept by reference. One that was changed in place would lead every site to a wrong result.
            base = self._models[held]
            intact = changes.is_version(base, held)
            self._changes[held] = changes.between(base, self._models[self._current]) if intact else None
        return self._changes.get(held)


def _weights(shareable: Shareable) -> DXO | None:
    try:
        dxo = from_shareable(shareable)
    except ValueError:
        return None
    fit = dxo.data_kind == DataKind.WEIGHTS and dxo.data and changes.is_numeric(dxo.data)
    return dxo if fit else None


def _is_same(one: Tensors, other: Tensors) -> bool:
    """Whether they are the very same arrays, as in all copies of a broadcast task."""
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)
