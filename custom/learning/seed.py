# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Random numbers: one seed a job, from which every other one is derived."""

from __future__ import annotations

import random

import numpy as np
import torch

from custom.errors import BundleError

MOST = 2**63


class Seed:
    """The component with the id `seed`; it seeds Python, NumPy and torch when it is built.

    FLARE builds components in the order of the configuration, so a model that is listed after this component starts
    from the same weights at every site and in every run.

    Args:
        seed: an integer from 0 to below 2**63.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        seed_everything(seed if self._is_good() else 0)

    def check(self) -> None:
        """Raises BundleError if the seed is out of range."""
        if not self._is_good():
            raise BundleError(
                code="setting-value", key="seed", expected="an integer from 0 to below 2**63", got=repr(self.seed)
            )

    def _is_good(self) -> bool:
        return type(self.seed) is int and 0 <= self.seed < MOST


def seed_everything(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def derive(*parts: int) -> int:
    """A 63-bit seed that depends on `parts`, such as (seed, site index, round); zeros at the end make no difference."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
