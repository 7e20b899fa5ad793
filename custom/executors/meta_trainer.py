# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Tasks `train` and `meta_train` of cross-device learning: one round of those writers of the site that were drawn.

What a writer does is a component (`fed_avg`, `reptile` or `maml` of `custom.learning`), so this executor serves the
rounds of FedAvg and those of meta-learning alike. The site sends the mean over its writers, none of their updates.
"""

from __future__ import annotations

import time
import zlib
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from custom.data.writers import WriterSiteData
from custom.errors import BundleError
from custom.executors.site_task import Site, SiteTask, needed_component
from custom.executors.writer_site import data_by_writers, is_stacked
from custom.keys import EVALUATED, TRAIN_METRICS, WRITERS
from custom.learning.train_writers import WritersUpdate, check_trainable, make_work, train_writers
from custom.learning.weights import set_weights


class MetaTrainer(SiteTask):
    """Trains the drawn writers; before that, scores the received model on the held-out ones if that is due.

    Args:
        algorithm: id of the component that says what a writer does (`custom.learning.cohort.LocalAlgorithm`).
        personalization: id of the `custom.learning.personalize.Personalization` that scores.
        stacked: train the writers of a cohort at once; null does so on CUDA, and one after the other elsewhere.
        data, model, seed, device: as in `SiteTask`; the data must come by writers.
    """

    def __init__(
        self,
        algorithm: str = "fed_avg",
        personalization: str = "personalization",
        stacked: bool | None = None,
        data: str = "data",
        model: str = "model",
        seed: str = "seed",
        device: str = "auto",
    ) -> None:
        super().__init__(data, model, seed, device)
        self.algorithm_id, self.personalization_id, self.stacked = algorithm, personalization, stacked

    def try_out(self, site: Site, fl_ctx: FLContext) -> list[str]:
        """Trains the writer with the fewest samples."""
        pool = data_by_writers(site).training.smallest()
        check_trainable(site.model)
        algorithm = needed_component(fl_ctx, self.algorithm_id)
        algorithm.check()
        if len(pool):
            work = make_work(algorithm, pool, 0, (), site.device)
            train_writers(site.model, algorithm, [work], stacked=is_stacked(self.stacked, site.device))
        return []

    def run(self, task_name: str, shareable: Shareable, site: Site, fl_ctx: FLContext, abort: Signal) -> Shareable:
        """One round."""
        started = time.monotonic()
        algorithm = needed_component(fl_ctx, self.algorithm_id)
        personalization = needed_component(fl_ctx, self.personalization_id)
        data = data_by_writers(site)
        check_trainable(site.model)
        algorithm.check()
        personalization.check()
        places = drawn_places(shareable, data, site)
        round_index = int(shareable.get_header(AppConstants.CURRENT_ROUND, 0))
        stacked = is_stacked(self.stacked, site.device)

        def should_stop() -> bool:
            return bool(abort.triggered)

        set_weights(site.model, from_shareable(shareable).data)
        meta: dict[str, Any] = {}
        if personalization.is_due(round_index) and len(data.held_out):
            meta[EVALUATED] = personalization.run(
                site.model, data.held_out, site.device, stacked=stacked, should_stop=should_stop
            ).means()
        stream = (zlib.crc32(task_name.encode()), round_index)
        drawn = (make_work(algorithm, data.training, place, stream, site.device) for place in places)
        update = train_writers(site.model, algorithm, drawn, stacked=stacked, should_stop=should_stop)

        metrics: dict[str, float] = {"writers": update.trained, "dropped_writers": update.dropped}
        if update.trained:
            metrics |= {"train_loss": update.loss}
        meta |= {MetaKey.NUM_STEPS_CURRENT_ROUND: update.weight, TRAIN_METRICS: metrics}
        num_rounds = shareable.get_header(AppConstants.NUM_ROUNDS, 1)
        line = f"{site.name}  {task_name} round {round_index + 1}/{num_rounds}  {_summary(update, meta.get(EVALUATED))}"
        self.log_info(fl_ctx, f"{line}  {time.monotonic() - started:.1f} s")
        if update.dropped:
            self.log_warning(fl_ctx, f"{line}: is the learning rate too high? Their updates were not finite")
        return DXO(DataKind.WEIGHT_DIFF, data=_named(update, site), meta=meta).to_shareable()


def drawn_places(shareable: Shareable, data: WriterSiteData, site: Site) -> list[int]:
    """The places in the pool of training writers that the server drew.

    Raises:
        BundleError: the server drew none for this site, or places that do not exist here.
    """
    places = shareable.get_header(WRITERS)
    count = len(data.training)
    if not isinstance(places, list) or not all(isinstance(place, int) and 0 <= place < count for place in places):
        raise BundleError(
            "the task does not say which writers are to train",
            code="task-malformed",
            site=site.name,
            key=WRITERS,
            expected=f"places from 0 to {count - 1}",
            got=f"{places!r:.80}",
            remedy="is custom.filters.draw_writers.DrawWriters bound to this task at the server, and are the data of "
            "this site the same as when the job began?",
        )
    return places


def _named(update: WritersUpdate, site: Site) -> dict[str, np.ndarray]:
    names = [name for name, _ in site.model.named_parameters()]
    return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in zip(names, update.diff, strict=False)}


def _summary(update: WritersUpdate, evaluated: dict[str, float] | None) -> str:
    parts = []
    if evaluated and evaluated["writers"]:
        before, after = (evaluated[f"{when}_accuracy"] for when in ("initial", "personalized"))
        parts.append(f"held-out accuracy {before:.3f} -> {after:.3f}")
    parts.append(f"{update.trained} writers")
    if update.trained:
        parts.append(f"train_loss {update.loss:.3f}")
    if update.dropped:
        parts.append(f"{update.dropped} dropped")
    return "  ".join(parts)
