# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Counting rounds through a whole job, where a second workflow counts its own from 1 again."""

from __future__ import annotations

from custom.events import Continued, RoundEnded


class Phases:
    """Adds up the rounds of one task after another; give it the `round` events in their order.

    Args:
        behind: rounds behind the model that the job began with: those of the job that it continues.
    """

    def __init__(self, behind: int = 0) -> None:
        self.task: str | None = None
        self._before, self._position = 0, behind

    def position(self, event: RoundEnded) -> int:
        """Rounds of training behind the model after the round of `event`, those of earlier tasks included."""
        if event.task != self.task and self._position:
            self._before = self._position - (event.round - 1)
        self.task = event.task
        self._position = self._before + event.round
        return self._position


def rounds_behind(continued: Continued) -> int:
    """Of all tasks, as the event `continued` tells it."""
    return sum(continued.rounds.values())
