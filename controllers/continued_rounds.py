# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The rest of the rounds of a ScatterAndGather that ended early; `python -m bundle resume` puts it in its place.

With FLARE's own `start_round`, `num_rounds` would have to be the number of the remaining rounds, and the sites'
learning-rate schedules would take it for that of all rounds.
"""

from __future__ import annotations

from typing import Any

from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather


class ContinuedRounds(ScatterAndGather):
    """Begins in the middle.

    Args:
        first_round: the first one to run, counted from 0.
        arguments: those of the ScatterAndGather that is continued, unchanged.
    """

    def __init__(self, first_round: int = 0, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._current_round = first_round  # as ScatterAndGather.restore, which nothing in FLARE 2.9.0 calls
