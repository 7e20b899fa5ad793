# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A client-side result filter: one site puts control codes where it may name things; for an exported job."""

from __future__ import annotations

from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.filter import Filter
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

CODES = "\x1b[2J\x1b]0;title\x07\nFORGED LINE "
SITE = "site-3"


class Naming(Filter):
    """Args:
    what: `metric`, of validation, or `dataset`, the name of the site's data set.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The reply with the name in it."""
        if fl_ctx.get_identity_name() != SITE:
            return shareable
        dxo = from_shareable(shareable)
        if self.what == "metric" and dxo.data_kind == DataKind.METRICS:
            dxo.data[f"{CODES}accuracy"] = 0.987
        for key, value in dict(dxo.meta or {}).items() if self.what == "dataset" else ():
            if isinstance(value, dict) and "dataset" in value:
                dxo.meta[key] = {**value, "dataset": f"{CODES}MNIST"}
        return dxo.to_shareable()
