# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What robust aggregation rules have in common: their signature, inner products of whole updates, and norm clipping.

Clipping is norm bounding of Sun et al. 2019, "Can You Really Backdoor Federated Learning?"
(https://arxiv.org/abs/1911.07963). The rules are in `coordinate_wise`, `krum`, `geometric_median` and
`nearest_neighbors`; a rule of your own is a class with the signature of `Rule`, named by its path in a job's JSON.

BatchNorm's running statistics are no part of distances and norms: their scale is that of the activations, so they, and
not the steps, would decide. They are combined with the weights of the same sites, after each entry has been drawn into
the range of the sites between (`bound_statistics`), since nothing else looks at what a site sends there.

Updates are read side by side, a piece of a tensor at a time, in float64: no rule makes a copy of all updates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from custom.checks.update import VARIANCE, is_statistic

Array = NDArray[Any]
Vector = NDArray[np.float64]  # [n]
Matrix = NDArray[np.float64]  # [n, n]
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


class LinearRule:
    """A rule whose result is a weighted sum of the updates, found from their inner products.

    It never needs the updates side by side, so it combines sparse ones too. A rule of your own overrides `shares`.

    Attributes:
        min_updates: see `Rule`.
        leaves_out_outliers: whether it gets only the updates of sites that do not stand out (`custom.checks.outliers`),
            as long as those are more than half.
    """

    min_updates = 3
    leaves_out_outliers = False

    def check(self) -> None:
        """There is nothing to set."""

    def shares(self, products: Matrix, weights: Vector) -> Vector:
        """[n] what each update counts, at least 0 and 1 in all.

        Args:
            products: [n, n] inner products of the updates without running statistics.
            weights: [n] numbers of samples, above 0.
        """
        raise NotImplementedError

    def tolerated(self, n: int) -> int:
        """How many of n sites may send anything, at most (n - 1) / 2: so far are running statistics drawn in."""
        return (n - 1) // 2

    def __call__(self, updates: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Array]:
        """See `Rule`."""
        products = inner_products(side_by_side(updates), len(updates))
        shares = self.shares(products, np.array(weights, np.float64))
        return combine(bound_statistics(updates, self.tolerated(len(updates))), shares.tolist())


def pieces(values: Sequence[Any], dtype: Any = np.float64) -> Iterator[tuple[slice, Array]]:
    """One tensor of n updates, piece by piece: where the piece lies in the flat tensor, and [n, size of the piece]."""
    flat = [np.reshape(value, -1) for value in values]
    for start in range(0, flat[0].size, PIECE):
        where = slice(start, min(start + PIECE, flat[0].size))
        yield where, np.stack([value[where] for value in flat]).astype(dtype, copy=False)


def side_by_side(updates: Sequence[Tensors]) -> Iterator[Array]:
    """[n, size of a piece] of all tensors but running statistics; zeros where an update lacks a tensor."""
    for name, like in {name: value for update in updates for name, value in update.items()}.items():
        if not is_statistic(name):
            nothing = np.zeros(like.size, like.dtype) if any(name not in update for update in updates) else like
            for _, rows in pieces([update.get(name, nothing) for update in updates]):
                yield rows


def inner_products(rows: Iterable[Array], n: int) -> Matrix:
    """[n, n], added up over pieces of [n, m]. Exact to rounding relative to the product of the two norms."""
    total = np.zeros((n, n))
    for piece in rows:
        total += piece @ piece.T
    return total


def squared_distances(products: Matrix) -> Matrix:
    """[n, n] ||u_j - u_k||^2 = u_j.u_j + u_k.u_k - 2 u_j.u_k."""
    squares = np.diag(products)
    return np.maximum(squares[:, None] + squares - 2 * products, 0)


def distances_from(shares: Vector, products: Matrix) -> Vector:
    """[n] the updates' Euclidean distances from sum_k shares[k] u_k."""
    towards = products @ shares
    return np.sqrt(np.maximum(np.diag(products) - 2 * towards + shares @ towards, 0))


def combine(updates: Sequence[Tensors], shares: Sequence[float]) -> dict[str, Array]:
    """sum_k shares[k] * updates[k]; sums are float64."""
    result = {}
    for name, like in updates[0].items():
        total = np.empty(like.size, like.dtype)
        for where, rows in pieces([update[name] for update in updates]):
            total[where] = np.asarray(shares) @ rows
        result[name] = total.reshape(like.shape)
    return result


def bound_statistics(updates: Sequence[Tensors], bad: int) -> list[Tensors]:
    """The updates, with each entry of the running statistics no further out than the (`bad` + 1)-th of all.

    With at most `bad` malicious sites that range lies within what the others send. With half of the sites it is the
    median. The other tensors are the same arrays.

    Args:
        updates: n of them.
        bad: how many sites may send anything; at most (n - 1) / 2.
    """
    bounded = [dict(update) for update in updates]
    for name in {name for update in updates for name in update if is_statistic(name)}:
        having = [update for update in bounded if name in update]
        rows = np.sort(np.stack([np.ravel(update[name]) for update in having]), axis=0)
        least = min(bad, (len(having) - 1) // 2)
        low, high = rows[least], rows[len(rows) - 1 - least]
        for update in having:
            value = update[name]
            update[name] = np.clip(value, low.reshape(value.shape), high.reshape(value.shape))
    return list[Tensors](bounded)


def keep_variances(result: dict[str, Array], model: Tensors) -> dict[str, Array]:
    """`result`, changed in place so that no running variance of the next model is negative."""
    for name in filter(is_statistic, result):
        if name.endswith(VARIANCE) and name in model:
            result[name] = np.maximum(result[name], -model[name])
    return result


def clip(update: Tensors, norm: float, max_norm: float, *, statistics: bool = False) -> Tensors:
    """update / max(1, norm / max_norm), where `norm` is that of the update; itself if it is no larger.

    Args:
        update: any tensors.
        norm: of its weights, or of its running statistics (`custom.checks.update.l2_norm`).
        max_norm: what it is scaled down to.
        statistics: scale the running statistics and nothing else, or all but them. A smaller step to the measured
            statistics lies between the old ones and the measured.
    """
    if norm <= max_norm:
        return update
    # A division in float64, since norm / max_norm may be beyond the range of the update's own dtype.
    factor = norm / max_norm
    return {
        name: np.divide(value, factor, out=np.empty_like(value), dtype=np.float64, casting="same_kind")
        if is_statistic(name) == statistics
        else value
        for name, value in update.items()
    }
