# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Task `personalize`: each held-out writer makes the received model its own, and is scored before and after."""

from __future__ import annotations

from dataclasses import asdict

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from custom.executors.site_task import Site, SiteTask, needed_component
from custom.executors.writer_site import data_by_writers, is_stacked
from custom.learning.train_writers import check_trainable
from custom.learning.weights import set_weights


class Personalizer(SiteTask):
    """Returns scores and no model: one entry a writer, in the order of the pool.

    Args:
        personalization: id of the `custom.learning.personalize.Personalization`.
        stacked: personalise the writers of a cohort at once; null does so on CUDA, and one after the other elsewhere.
        data, model, seed, device: as in `SiteTask`; the data must come by writers.
    """

    def __init__(
        self,
        personalization: str = "personalization",
        stacked: bool | None = None,
        data: str = "data",
        model: str = "model",
        seed: str = "seed",
        device: str = "auto",
    ) -> None:
        super().__init__(data, model, seed, device)
        self.personalization_id, self.stacked = personalization, stacked

    def try_out(self, site: Site, fl_ctx: FLContext) -> list[str]:
        """Personalises the held-out writer with the fewest samples."""
        pool = data_by_writers(site).held_out.smallest()
        check_trainable(site.model)
        personalization = needed_component(fl_ctx, self.personalization_id)
        personalization.check()
        personalization.run(site.model, pool, site.device, stacked=is_stacked(self.stacked, site.device))
        return []

    def run(self, task_name: str, shareable: Shareable, site: Site, fl_ctx: FLContext, abort: Signal) -> Shareable:
        """All held-out writers."""
        personalization = needed_component(fl_ctx, self.personalization_id)
        personalization.check()
        check_trainable(site.model)
        set_weights(site.model, from_shareable(shareable).data)
        result = personalization.run(
            site.model,
            data_by_writers(site).held_out,
            site.device,
            stacked=is_stacked(self.stacked, site.device),
            should_stop=lambda: bool(abort.triggered),
        )
        if result.query:
            means = result.means()
            self.log_info(
                fl_ctx,
                f"{site.name}  personalised {means['writers']} held-out writers  "
                f"accuracy {means['initial_accuracy']:.3f} -> {means['personalized_accuracy']:.3f}",
            )
        return DXO(DataKind.METRICS, data=asdict(result)).to_shareable()
