# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which entries of an update are worth sending: scores, of which the highest are kept.

The criteria of Zhou et al. 2019, "Deconstructing Lottery Tickets" (https://arxiv.org/abs/1905.01067), and chance.
`MagnitudeChange()` is what sparse exchange means by top-k (Aji and Heafield 2017, https://arxiv.org/abs/1704.05021).

A criterion of your own is any callable with the signature of `Criterion`, named by its path in a job's JSON.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from custom.errors import BundleError

Array = NDArray[Any]


class Criterion(Protocol):
    """Scores the entries of an update. It sees a tensor piece by piece, and must judge each entry by itself."""

    def __call__(self, start: Array, update: Array, rng: np.random.Generator) -> Array:
        """Scores one piece of a tensor.

        Args:
            start: [m], floating, the received global weights.
            update: [m], what training added to them; neither may be changed.
            rng: for criteria with chance in them; the same at every call for the same piece.

        Returns:
            [m] scores, compared as float32; the highest are kept, and never NaN.
        """
        ...


class _Directed:
    """What the criteria below have in common: `largest=False` turns the order round."""

    def __init__(self, largest: bool = True) -> None:
        self.largest = largest

    def check(self) -> None:
        """Raises BundleError if `largest` is not true or false."""
        if not isinstance(self.largest, bool):
            raise BundleError(code="setting-value", key="largest", expected="true or false", got=repr(self.largest))

    def _directed(self, scores: Array) -> Array:
        self.check()  # FLARE builds the criterion from JSON and checks nothing
        return scores if self.largest else -scores


class MagnitudeChange(_Directed):
    """How far an entry moved, |update|; `largest=False` keeps those that moved least."""

    def __call__(self, start: Array, update: Array, rng: np.random.Generator) -> Array:
        """See `Criterion`."""
        scores: Array = np.abs(update)
        return self._directed(scores)


class FinalMagnitude(_Directed):
    """How large an entry has become, |start + update|; `largest=False` keeps the smallest."""

    def __call__(self, start: Array, update: Array, rng: np.random.Generator) -> Array:
        """See `Criterion`."""
        scores: Array = np.abs(start + update)
        return self._directed(scores)


class MagnitudeIncrease(_Directed):
    """How much an entry grew, |start + update| - |start|; `largest=False` keeps those that shrank most."""

    def __call__(self, start: Array, update: Array, rng: np.random.Generator) -> Array:
        """See `Criterion`."""
        scores: Array = np.abs(start + update) - np.abs(start)
        return self._directed(scores)


class Random:
    """Chance: what any other criterion must beat."""

    def __call__(self, start: Array, update: Array, rng: np.random.Generator) -> Array:
        """See `Criterion`."""
        return rng.random(update.size, dtype=np.float32)
