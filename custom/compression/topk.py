# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Selects the k highest-scoring entries of an update, in linear time.

Exactly k, whatever the scores: of entries that score the same, those with the lower index are kept. Besides the result,
memory holds 2 k scores of 4 bytes, or all of them if that is less. Scores are computed twice, piece by piece, which is
cheaper than to keep them.
It does not say what a score is (`criteria`), and sends nothing (`wire`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from custom.checks.update import SAME_MODEL, is_finite_number
from custom.compression.criteria import Criterion
from custom.errors import BundleError
from custom.printable import shown

Tensors = Mapping[str, NDArray[Any]]
Indices = dict[str, NDArray[Any]]

SCOPES = ("model", "tensor")
PIECE = 1 << 17  # entries scored at a time: they stay in the cache, and a whole tensor's scores are never held twice


class _Flat(NamedTuple):
    name: str
    start: NDArray[Any]  # [n]
    update: NDArray[Any]  # [n]


def check_keep_fraction(keep_fraction: Any) -> float:
    """Returns it as a float.

    Raises:
        BundleError: it is not a number above 0 and at most 1.
    """
    if isinstance(keep_fraction, bool) or not is_finite_number(keep_fraction) or not 0 < keep_fraction <= 1:
        raise BundleError(
            code="setting-value", key="keep_fraction", expected="a number above 0, at most 1", got=shown(keep_fraction)
        )
    return float(keep_fraction)


def warm_up(keep_fraction: float, round_number: int, warmup_rounds: int) -> float:
    """The fraction to keep in a round: 1 in round 0, falling geometrically to `keep_fraction` after `warmup_rounds`.

    Lin et al. 2018, "Deep Gradient Compression" (https://arxiv.org/abs/1712.01887), section 3.3: with 0.001 and 5
    rounds it is 1, 0.25, 0.063, 0.016, 0.004, 0.001, 0.001 ...

    Args:
        keep_fraction: in (0, 1].
        round_number: counted from 0.
        warmup_rounds: 0 or more; 0 is no warm-up.

    Raises:
        BundleError: an argument is out of range.
    """
    target = check_keep_fraction(keep_fraction)
    if warmup_rounds < 0:
        raise BundleError(code="setting-value", key="warmup_rounds", expected="0 or more", got=warmup_rounds)
    if round_number < 0:
        raise BundleError(code="setting-value", key="round_number", expected="0 or more", got=round_number)
    return target if round_number >= warmup_rounds else float(target ** (round_number / warmup_rounds))


def select(
    update: Tensors,
    start: Tensors,
    criterion: Criterion,
    keep_fraction: float,
    *,
    scope: str = "model",
    seed: int = 0,
) -> Indices:
    """Chooses `max(1, round(keep_fraction * n))` of n entries (half rounds to even); none where n is 0.

    Args:
        update: tensor name to difference, of any shape; integer tensors are passed over.
        start: the weights that the update is to be added to; may hold more tensors.
        criterion: the score; not asked when everything is kept.
        keep_fraction: in (0, 1].
        scope: what n counts and one threshold is for: the whole `model` or each `tensor`.
        seed: 0 or more, for criteria with chance in them, such as the round's number.

    Returns:
        For every floating-point tensor: the flat indices to keep, ascending, perhaps none; int32,
        or int64 where that is too small. Ties go to the tensor that is first by name, and in it to the lower index.

    Raises:
        BundleError: an argument is out of range, the two models differ, or a score is NaN.
    """
    keep_fraction = check_keep_fraction(keep_fraction)
    if scope not in SCOPES:
        raise BundleError(code="setting-value", key="scope", expected=" or ".join(SCOPES), got=shown(scope))
    names = (name for name in sorted(update) if np.issubdtype(update[name].dtype, np.floating))
    tensors = [_flat(name, update[name], start) for name in names]
    groups = [tensors] if scope == "model" else [[tensor] for tensor in tensors]
    kept: Indices = {}
    for group in groups:
        kept |= _select_group(group, criterion, keep_fraction, seed)
    return kept


def index_dtype(size: int) -> type[np.int32] | type[np.int64]:
    """The smallest of the two that holds an index into `size` entries."""
    return np.int32 if size <= 2**31 else np.int64


def _flat(name: str, update: NDArray[Any], start: Tensors) -> _Flat:
    got = start[name].shape if name in start else "no such tensor"
    if got != update.shape:
        raise BundleError(
            "in the global model", code="update-shape", key=name, expected=update.shape, got=got, remedy=SAME_MODEL
        )
    return _Flat(name, np.reshape(start[name], -1), np.reshape(update, -1))


def _select_group(group: Sequence[_Flat], criterion: Criterion, keep_fraction: float, seed: int) -> Indices:
    total = sum(tensor.update.size for tensor in group)
    k = max(1, round(keep_fraction * total)) if total else 0
    if k == total:
        return {name: np.arange(flat.size, dtype=index_dtype(flat.size)) for name, _, flat in group}
    threshold, ties = _threshold(group, criterion, total, k, seed)
    kept: Indices = {}
    for tensor in group:
        pieces = [np.empty(0, index_dtype(tensor.update.size))]
        for offset, scores in _scores(tensor, criterion, seed):
            above = scores > threshold
            if ties and (equal := scores == threshold).any():
                taken = np.flatnonzero(equal)[:ties]
                above[taken] = True
                ties -= taken.size
            pieces.append((np.flatnonzero(above) + offset).astype(pieces[0].dtype))
        kept[tensor.name] = np.concatenate(pieces)
    if sum(indices.size for indices in kept.values()) != k:
        raise BundleError(
            f"{type(criterion).__name__} gives other scores at every call",
            code="criterion-faulty",
            remedy="use its rng",
        )
    return kept


def _threshold(group: Sequence[_Flat], criterion: Criterion, total: int, k: int, seed: int) -> tuple[np.float32, int]:
    """The k-th highest score, and how many entries with just that score are among the k."""
    highest = np.empty(min(total, 2 * k + PIECE), np.int32)  # so far; now and then cut down to k
    filled, floor = 0, None
    for tensor in group:
        for _, scores in _scores(tensor, criterion, seed):
            if np.isnan(scores.max()):
                remedy = "is the learning rate too high at this site?"
                raise BundleError(
                    "the score of an entry is NaN", code="criterion-faulty", key=tensor.name, remedy=remedy
                )
            ranks = _in_order((scores + np.float32(0)).view(np.int32))  # no -0.0
            if filled + ranks.size > highest.size:
                highest[:k] = _highest(highest[:filled], k)
                filled, floor = k, highest[0]
            if floor is not None:
                ranks = ranks[np.flatnonzero(ranks > floor)]
            highest[filled : filled + ranks.size] = ranks
            filled += ranks.size
    highest = _highest(highest[:filled], k)
    ties = k - int(np.count_nonzero(highest > highest[0]))
    return _in_order(highest[:1]).view(np.float32)[0], ties


def _highest(ranks: NDArray[np.int32], k: int) -> NDArray[np.int32]:
    """The k highest, the lowest of them first; changes the order of `ranks`."""
    ranks.partition(ranks.size - k)
    return ranks[ranks.size - k :]


def _scores(tensor: _Flat, criterion: Criterion, seed: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Offset and scores of each piece; the same at every call."""
    rng = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
    for offset in range(0, tensor.update.size, PIECE):
        start, update = tensor.start[offset : offset + PIECE], tensor.update[offset : offset + PIECE]
        scores = np.asarray(criterion(start, update, rng), np.float32)
        if scores.shape != update.shape:
            problem = f"{type(criterion).__name__} must give one score an entry"
            raise BundleError(
                problem, code="criterion-faulty", key=tensor.name, expected=update.shape, got=scores.shape
            )
        yield offset, scores


def _in_order(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """The bits of float32 numbers as integers in the numbers' order, or back; NumPy partitions integers 4 times faster.

    The bits of numbers that are not negative are in order as they are, those of negative ones in reverse order.
    """
    return bits if bits.min() >= 0 else bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
