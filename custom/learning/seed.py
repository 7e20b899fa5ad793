# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Random numbers: one seed a job, from which every other one is derived."""

from __future__ import annotations

import random

import numpy as np
import torch

from custom.errors import BundleError


class Seed:
    """The component with the id `seed`; it seeds Python, NumPy and torch when it is built.

    FLARE builds components in the order of the configuration, so a model that is listed after this component starts
    from the same weights at every site and in every run.

    Args:
        seed: any non-negative integer.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        seed_everything(max(0, seed))

    def check(self) -> None:
        """Raises BundleError if the seed is negative."""
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise BundleError(key="seed", expected="a non-negative integer", got=repr(self.seed))


def seed_everything(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def derive(*parts: int) -> int:
    """A 63-bit seed that depends on every one of `parts`, such as (seed, site index, round)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
