# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Task `validate`: how good is a model that somebody sent, on this site's data?"""

from __future__ import annotations

from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from custom.executors.site_task import Site, SiteTask
from custom.keys import SPLIT
from custom.learning.evaluate import evaluate_split
from custom.learning.weights import set_weights


class Validator(SiteTask):
    """Scores the received model on the test split, or on the one that the task's header `split` names."""

    def try_out(self, site: Site, fl_ctx: FLContext) -> list[str]:
        """A site may train and have nothing to score the final models on; that is said."""
        return [] if site.data.size("test") else ["no test samples: this site will not score the final models"]

    def run(self, task_name: str, shareable: Shareable, site: Site, fl_ctx: FLContext, abort: Signal) -> Shareable:
        """Returns accuracy and loss, with the number of training samples as the site's weight."""
        split = shareable.get_header(SPLIT, "test")
        set_weights(site.model, from_shareable(shareable).data)
        metrics = evaluate_split(site.model, site.data, split, site.device)
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: site.data.size("train")}
        return DXO(DataKind.METRICS, data=metrics, meta=meta).to_shareable()
