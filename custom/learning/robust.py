# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What robust aggregation rules have in common: their signature, distances over whole updates, and norm clipping.

Clipping is norm bounding of Sun et al. 2019, "Can You Really Backdoor Federated Learning?"
(https://arxiv.org/abs/1911.07963). The rules are in `coordinate_wise`, `krum` and `geometric_median`; a rule of your
own is a class with the signature of `Rule`, named by its path in a job's JSON.

BatchNorm's running statistics are no part of distances and norms: their scale is that of the activations, so they, and
not the steps, would decide. They are combined with the weights of the same sites, after each entry has been drawn into
the range of the sites between (`bound_statistics`), since nothing else looks at what a site sends there.

Updates are read side by side, a piece of a tensor at a time, in float64: no rule makes a copy of all updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from custom.checks.update import VARIANCE, is_statistic

Array = NDArray[Any]
Tensors = Mapping[str, Array]
PIECE = 1 << 14  # entries of each update that are read at a time: those of a few sites stay in the cache


class Rule(Protocol):
    """Combines the updates of a round so that a few of them, whatever they hold, cannot lead the result astray."""

    @property
    def min_updates(self) -> int:
        """With fewer updates the rule promises nothing, and is not called."""

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""

    def __call__(self, updates: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Array]:
        """The combined update.

        Args:
            updates: n >= `min_updates` of them, in the order of the sites' names, of finite tensors of the same names,
                shapes and floating dtypes.
            weights: [n] numbers of samples, above 0.

        Returns:
            All tensors, in their own shapes and dtypes.
        """


def pieces(values: Sequence[Any], dtype: Any = np.float64) -> Iterator[tuple[slice, Array]]:
    """One tensor of n updates, piece by piece: where the piece lies in the flat tensor, and [n, size of the piece]."""
    flat = [np.reshape(value, -1) for value in values]
    for start in range(0, flat[0].size, PIECE):
        where = slice(start, min(start + PIECE, flat[0].size))
        yield where, np.stack([value[where] for value in flat]).astype(dtype, copy=False)


def combine(updates: Sequence[Tensors], shares: Sequence[float]) -> dict[str, Array]:
    """sum_k shares[k] * updates[k]; sums are float64."""
    result = {}
    for name, like in updates[0].items():
        total = np.empty(like.size, like.dtype)
        for where, rows in pieces([update[name] for update in updates]):
            total[where] = np.asarray(shares) @ rows
        result[name] = total.reshape(like.shape)
    return result


def measured(update: Tensors) -> list[str]:
    """The tensors that distances are over: all but running statistics."""
    return [name for name in update if not is_statistic(name)]


def bound_statistics(updates: Sequence[Tensors], bad: int) -> list[Tensors]:
    """The updates, with each entry of the running statistics no further out than the (`bad` + 1)-th of all.

    With at most `bad` malicious sites that range lies within what the others send. With half of the sites it is the
    median. The other tensors are the same arrays.

    Args:
        updates: n of them.
        bad: how many sites may send anything; at most (n - 1) / 2.
    """
    bounded = [dict(update) for update in updates]
    for name in filter(is_statistic, updates[0]):
        rows = np.sort(np.stack([update[name] for update in updates]), axis=0)
        for update in bounded:
            update[name] = np.clip(update[name], rows[bad], rows[len(rows) - 1 - bad])
    return list[Tensors](bounded)


def keep_variances(result: dict[str, Array], model: Tensors) -> dict[str, Array]:
    """`result`, changed in place so that no running variance of the next model is negative."""
    for name in filter(is_statistic, result):
        if name.endswith(VARIANCE) and name in model:
            result[name] = np.maximum(result[name], -model[name])
    return result


def distances(updates: Sequence[Tensors], centre: Tensors) -> NDArray[np.float64]:
    """[n] Euclidean distances of the updates from `centre`, over all tensors together but running statistics."""
    squares = np.zeros(len(updates))
    for name in measured(centre):
        value = centre[name]
        for _, rows in pieces([value, *(update[name] for update in updates)]):
            difference = rows[1:] - rows[0]
            squares += np.einsum("kj,kj->k", difference, difference)
    return np.sqrt(squares)


def clip(update: Tensors, norm: float, max_norm: float) -> Tensors:
    """update / max(1, norm / max_norm), where `norm` is that of the update; itself if it is no larger.

    Running statistics, which have no part in the norm, stay: half of the way to a variance is no variance.
    """
    if norm <= max_norm:
        return update
    # A division in float64, since norm / max_norm may be beyond the range of the update's own dtype.
    factor = norm / max_norm
    return {
        name: value
        if is_statistic(name)
        else np.divide(value, factor, out=np.empty_like(value), dtype=np.float64, casting="same_kind")
        for name, value in update.items()
    }
