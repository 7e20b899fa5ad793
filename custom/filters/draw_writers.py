# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Server-side task filter that draws, each round, the writers that are to train, out of those of all sites.

The server knows how many writers each site hosts, and writer i of n by that number alone. A draw depends on the seed,
the task and the round, and not on how the writers are spread over the sites.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping

import numpy as np
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from custom.checks.numbers import check_counts
from custom.errors import BundleError
from custom.keys import SAMPLES, WRITERS
from custom.learning.seed import derive
from custom.panic import ends_job

COUNT = "training_writers"


class DrawWriters(Filter):
    """Tells every site which of its writers are drawn, and nothing of the other sites'.

    Put it into the server's `task_data_filters` for the training tasks; InitializeGlobalWeights must have run before.

    Args:
        writers_per_round: how many are drawn, each at most once a round.
        seed: id of the seed component (`custom.learning.seed.Seed`) in the server's configuration.
    """

    def __init__(self, writers_per_round: int = 20, seed: str = "seed") -> None:
        super().__init__()
        self.writers_per_round, self.seed_id = writers_per_round, seed

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_counts(writers_per_round=self.writers_per_round)

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Ends the job, before any training, if the draw is not possible."""
        if event_type == AppEventType.ROUND_STARTED:
            self.check()
            self._draw("", 0, fl_ctx)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """A copy of the task with this site's writers in the header `writers`: all sites share one task."""
        site = fl_ctx.get_peer_context().get_identity_name()
        task = str(fl_ctx.get_prop(FLContextKey.TASK_NAME))
        round_index = shareable.get_header(AppConstants.CURRENT_ROUND)
        if not isinstance(round_index, int):
            raise BundleError(
                code="job-component",
                key=f"DrawWriters task {task}",
                expected="a training task, with a round",
                got=round_index,
            )
        drawn = self._draw(task, round_index, fl_ctx)
        result = copy.copy(shareable)
        result[ReservedHeaderKey.HEADERS] = {**shareable[ReservedHeaderKey.HEADERS], WRITERS: drawn.get(site, [])}
        return result

    def _draw(self, task: str, round_index: int, fl_ctx: FLContext) -> dict[str, list[int]]:
        facts = fl_ctx.get_prop(SAMPLES)
        seed = fl_ctx.get_engine().get_component(self.seed_id)
        if not facts or seed is None:
            missing = "InitializeGlobalWeights before this workflow" if not facts else f"a component {self.seed_id}"
            raise BundleError(
                code="job-component",
                key="DrawWriters",
                expected=missing,
                got="none",
                remedy="correct config_fed_server.json",
            )
        seed.check()
        counts = {site: int(facts[site].get(COUNT, 0)) for site in facts}
        return draw(counts, self.writers_per_round, derive(seed.seed, zlib.crc32(task.encode()), round_index))


def draw(counts: Mapping[str, int], number: int, seed: int) -> dict[str, list[int]]:
    """Draws writers without replacement, each with the same chance.

    Args:
        counts: how many writers each site hosts.
        number: how many to draw.
        seed: of this draw.

    Returns:
        For each site the drawn places among its own writers, ascending.

    Raises:
        BundleError: there are fewer writers than are to be drawn.
    """
    total = sum(counts.values())
    if number > total:
        raise BundleError(
            code="data-too-small",
            key="writers_per_round",
            expected=f"at most the {total} training writers of the {len(counts)} sites",
            got=number,
            remedy="lower writers_per_round, or give the sites more writers (num_writers, dataset)",
        )
    drawn = np.sort(np.random.default_rng(seed).choice(total, number, replace=False))
    result, first = {}, 0
    for site in sorted(counts):
        own = drawn[(drawn >= first) & (drawn < first + counts[site])] - first
        result[site] = [int(place) for place in own]
        first += counts[site]
    return result
