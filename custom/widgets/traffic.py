# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Bytes of the arrays between server and sites, as sent, beside what dense exchange of the same messages would cost.

Measured at the server: a task after its last filter, a result before its first one. Dense exchange would have sent the
task as it was before its first filter; what it would have received, the global model tells.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from nvflare.apis.dxo import DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants

FIELDS = ("upload_bytes", "download_bytes", "dense_upload_bytes", "dense_download_bytes")
_DENSE = "traffic_dense_bytes"  # in the context of one task request


class Traffic:
    """Counts by site. Sites are served in threads of their own, so every change is under a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sites: dict[str, dict[str, int]] = {}

    def task_to_be_filtered(self, fl_ctx: FLContext) -> None:
        """At BEFORE_TASK_DATA_FILTER; that the task is then sent is not certain."""
        dense = payload_bytes(fl_ctx.get_prop(FLContextKey.TASK_DATA))
        fl_ctx.set_prop(_DENSE, dense, private=True, sticky=False)

    def task_sent(self, fl_ctx: FLContext) -> None:
        """At AFTER_TASK_DATA_FILTER."""
        sent = payload_bytes(fl_ctx.get_prop(FLContextKey.TASK_DATA))
        self._add(fl_ctx, download_bytes=sent, dense_download_bytes=fl_ctx.get_prop(_DENSE, sent))

    def result_received(self, fl_ctx: FLContext) -> None:
        """At BEFORE_TASK_RESULT_FILTER."""
        result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        dense = dense_bytes(result, fl_ctx)
        self._add(fl_ctx, upload_bytes=payload_bytes(result), dense_upload_bytes=dense)

    def _add(self, fl_ctx: FLContext, **counts: int) -> None:
        site = fl_ctx.get_peer_context().get_identity_name()
        with self._lock:
            known = self._sites.setdefault(site, dict.fromkeys(FIELDS, 0))
            for name, count in counts.items():
                known[name] += count

    def by_site(self) -> dict[str, dict[str, int]]:
        """Each of FIELDS, by site in name order."""
        with self._lock:
            return {site: dict(counts) for site, counts in sorted(self._sites.items())}


def totals(by_site: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Each of FIELDS, of all sites."""
    return {name: sum(counts[name] for counts in by_site.values()) for name in FIELDS}


def dense_bytes(result: Shareable, fl_ctx: FLContext) -> int:
    """Bytes of `result` if it were dense: an update has all floating-point tensors of the global model.

    What is no update, such as an error, and one that stands for nothing, of weight 0, count as they are.
    """
    model = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
    try:
        dxo = from_shareable(result)
        nothing = not dxo.data and not dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
    except (ValueError, TypeError):
        return payload_bytes(result)
    updates = (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF)
    if nothing or dxo.data_kind not in updates or not isinstance(model, ModelLearnable) or model.is_empty():
        return payload_bytes(result)
    whole = dxo.data_kind == DataKind.WEIGHTS
    tensors = model[ModelLearnableKey.WEIGHTS].values()
    return sum(tensor.nbytes for tensor in tensors if whole or _is_floating(tensor.dtype))


def _is_floating(dtype: Any) -> bool:
    return bool(getattr(dtype, "is_floating_point", getattr(dtype, "kind", "") == "f"))  # of torch, else of NumPy


def payload_bytes(shareable: Shareable) -> int:
    """Bytes of all arrays and byte strings in the message, without names and FLARE's framing: some 300 a tensor."""

    def size(value: Any) -> int:
        if isinstance(value, dict):
            return sum(size(item) for item in value.values())
        if isinstance(value, list | tuple):
            return sum(size(item) for item in value)
        return len(value) if isinstance(value, bytes) else int(getattr(value, "nbytes", 0))

    return size(shareable)
