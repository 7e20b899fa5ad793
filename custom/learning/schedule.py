# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Learning rates across rounds."""

from __future__ import annotations

import math

from custom.errors import BundleError

SCHEDULES = ("constant", "cosine", "step")


def learning_rate(base: float, schedule: str, round_index: int, num_rounds: int, warmup_rounds: int = 0) -> float:
    """The learning rate of one round.

    Args:
        base: the highest learning rate.
        schedule: `constant`; `cosine`, from `base` towards 0 over all rounds (Loshchilov and Hutter 2017,
            https://arxiv.org/abs/1608.03983); or `step`, a tenth of it after half of the rounds and again after three
            quarters.
        round_index: 0 for the first round.
        num_rounds: number of rounds in all.
        warmup_rounds: over how many rounds the rate rises in equal steps to that of the schedule: with 2, the first
            round has a third of it and the second two thirds.

    Raises:
        BundleError: the schedule is unknown.
    """
    if isinstance(warmup_rounds, bool) or not isinstance(warmup_rounds, int) or warmup_rounds < 0:
        raise BundleError(
            code="setting-value", key="lr_warmup_rounds", expected="a whole number from 0", got=repr(warmup_rounds)
        )
    base *= min(1.0, (round_index + 1) / (warmup_rounds + 1))
    done = min(1.0, round_index / max(1, num_rounds))
    if schedule == "constant":
        return base
    if schedule == "cosine":
        return base * 0.5 * (1.0 + math.cos(math.pi * done))
    if schedule == "step":
        return base * (0.1 if done >= 0.5 else 1.0) * (0.1 if done >= 0.75 else 1.0)
    raise BundleError(code="setting-value", key="lr_schedule", expected=f"one of {', '.join(SCHEDULES)}", got=schedule)
