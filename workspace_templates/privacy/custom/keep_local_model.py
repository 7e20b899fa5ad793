# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Site-level result filter: no whole model leaves the site but the untrained one; FLARE's filters see to the updates.

Cross-site evaluation asks each site for its trained model. Filters made for updates would ruin it (they clip the
weights themselves), and unfiltered it would tell more than the updates that they guard.
"""

from __future__ import annotations

from collections.abc import Sequence

from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply

MAY_LEAVE = (DataKind.WEIGHT_DIFF, DataKind.METRICS)


class KeepLocalModel(Filter):
    """Replaces a result that is neither update nor metrics by an error reply, unless its task precedes any training.

    Args:
        untrained: names of such tasks; the bundle's executors answer them with the model as it was built.
    """

    def __init__(self, untrained: Sequence[str] = ("get_weights",)) -> None:
        super().__init__()
        self.untrained = tuple(untrained)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The result itself, or the error reply; FLARE goes on without it."""
        task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
        try:
            kind = from_shareable(shareable).data_kind
        except (ValueError, TypeError):  # no model: an error reply, or an empty one
            return shareable
        if kind in MAY_LEAVE or task in self.untrained:
            return shareable
        reason = f"{task}: the trained model of {fl_ctx.get_identity_name()} stays there"
        self.log_warning(fl_ctx, reason)
        return make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR, headers={ReservedHeaderKey.ERROR: reason})
