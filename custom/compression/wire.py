# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The format of a sparse update: values as float arrays by tensor, and where they belong as compact bytes beside them.

The values are what FLARE's filters expect in a DXO's `data`; the positions are strings, integers, lists and bytes (a
NumPy array costs FLARE some 280 bytes of its own, bytes cost 6), so they travel in the DXO's meta. Per tensor the
positions are nothing (`all` are sent), or the gaps between those `kept`, or, where most are, those `left_out` (`rice`).
A tensor of which nothing is sent is not mentioned. Which entries are sent is `topk`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from custom.checks.update import SAME_MODEL, Origin, Tensors, UpdateRejected
from custom.compression import rice
from custom.compression.topk import index_dtype
from custom.errors import BundleError
from custom.printable import shown

VERSION = 1
VALUE_TYPES = ("float32", "float16")
CODINGS = ("all", "kept", "left_out")


class Entries(NamedTuple):
    """Some entries of one tensor.

    Attributes:
        indices: [k] flat indices (C order), strictly ascending, int32 or int64.
        values: [k] floating.
    """

    indices: NDArray[Any]
    values: NDArray[Any]


class Payload(NamedTuple):
    """What travels.

    Attributes:
        values: tensor name to [k] float32 or float16, k >= 1.
        positions: {"version": 1, "tensors": {name: [coding, parameter, stream, shape]}}, of plain Python types.
    """

    values: dict[str, NDArray[Any]]
    positions: dict[str, Any]


class PayloadRejected(UpdateRejected):
    """A payload that must not be used; nothing of it has been.

    `reason` is one of UpdateRejected's `extra_key`, `dtype`, `shape`, `not_finite`, or `version`, `format` (not built
    as it should be), `unpaired` (values without positions, or positions without values), `count` (of values) or
    `positions` (a damaged stream).
    """


def encode(update: Tensors, indices: Mapping[str, NDArray[Any]], value_type: str = "float32") -> Payload:
    """Packs the chosen entries of an update.

    A tensor with a value beyond float16's range (65504) travels as float32; a float16 tensor always as float16.

    Args:
        update: tensor name to floating-point difference, of any shape.
        indices: tensor name to strictly ascending flat indices, as `topk.select` returns them.
        value_type: `float32` or `float16`.

    Raises:
        BundleError: another value type, or a value is NaN or infinite.
    """
    if value_type not in VALUE_TYPES:
        raise BundleError(
            code="setting-value", key="value_type", expected=" or ".join(VALUE_TYPES), got=shown(value_type)
        )
    values, tensors = {}, {}
    for name, kept in indices.items():
        if kept.size:
            values[name] = _rounded(name, np.take(update[name], kept), value_type)
            tensors[name] = [*_where(kept, update[name].size), list(update[name].shape)]
    return Payload(values, {"version": VERSION, "tensors": tensors})


def _rounded(name: str, values: NDArray[Any], value_type: str) -> NDArray[Any]:
    narrowest = min(np.dtype(value_type), values.dtype, key=lambda dtype: dtype.itemsize)
    with np.errstate(over="ignore"):
        sent = values.astype(narrowest, copy=False)
        if not np.isfinite(sent).all():
            sent = values.astype(np.float32, copy=False)
    if not np.isfinite(sent).all():
        remedy = "is the learning rate too high at this site?"
        raise BundleError("a value to be sent is NaN or infinite", code="update-not-finite", key=name, remedy=remedy)
    return sent


def _where(kept: NDArray[Any], size: int) -> tuple[str, int, bytes]:
    if kept.size == size:
        return "all", 0, b""
    if 2 * kept.size <= size:
        return "kept", *rice.encode(kept)
    return "left_out", *rice.encode(_complement(kept, size))


def _complement(indices: NDArray[Any], size: int) -> NDArray[Any]:
    mask = np.ones(size, bool)
    mask[indices] = False
    return np.flatnonzero(mask)


def nbytes(payload: Payload) -> int:
    """Bytes of values, streams and shapes (4 a dimension, 2 a tensor), without names and FLARE's own framing."""
    tensors = payload.positions["tensors"].values()
    headers = sum(len(stream) + 4 * len(shape) + 2 for _, _, stream, shape in tensors)
    return headers + sum(values.nbytes for values in payload.values.values())


def decode(values: Any, positions: Any, model: Tensors, origin: Origin) -> dict[str, Entries]:
    """Checks a payload, all of it, and unpacks it.

    Memory is bounded by the size of the model and of what was received, whatever the payload claims.

    Args:
        values: what came as `Payload.values`.
        positions: what came as `Payload.positions`.
        model: the global model, all tensors.
        origin: whose update it is.

    Returns:
        Tensor name to its entries, with float32 values.

    Raises:
        PayloadRejected: it is not what `encode` makes for this model; names the tensor.
    """
    tensors = _tensors(values, positions, origin)
    return {name: _decode_tensor(name, values[name], tensors[name], model, origin) for name in sorted(tensors)}


def check(values: Any, positions: Any, model: Tensors, origin: Origin) -> None:
    """Raises what `decode` would, and holds no more than one unpacked tensor at a time."""
    tensors = _tensors(values, positions, origin)
    for name in sorted(tensors):
        _decode_tensor(name, values[name], tensors[name], model, origin)


def decode_tensor(name: str, values: Tensors, positions: Mapping[str, Any], model: Tensors, origin: Origin) -> Entries:
    """One tensor's part of what `decode` returns, of a payload that `check` has passed."""
    return _decode_tensor(name, values[name], positions["tensors"][name], model, origin)


def _tensors(values: Any, positions: Any, origin: Origin) -> dict[str, Any]:
    """The description of each tensor, once there is one for all values and no more."""
    if not isinstance(positions, dict) or not isinstance(values, dict):
        got = f"{type(values).__name__} and {type(positions).__name__}"
        raise PayloadRejected("format", origin, key="payload", expected="two dictionaries", got=got)
    version, tensors = positions.get("version"), positions.get("tensors")
    if type(version) is not int or version != VERSION:
        remedy = "do server and sites run the same job folder?"
        expected = f"version {VERSION}"
        raise PayloadRejected("version", origin, key="payload", expected=expected, got=shown(version), remedy=remedy)
    if set(positions) != {"version", "tensors"} or not isinstance(tensors, dict):
        got = shown(sorted(map(shown, positions)))
        raise PayloadRejected("format", origin, key="payload", expected="version and tensors", got=got)
    for name in sorted(tensors.keys() ^ values.keys(), key=shown):
        problem = "positions without values" if name in tensors else "values without positions"
        raise PayloadRejected("unpaired", origin, problem, key=shown(name), remedy="has a filter removed tensors?")
    for name in tensors:
        if not isinstance(name, str):
            raise PayloadRejected("format", origin, key="payload", expected="a tensor's name", got=shown(name))
    return tensors


def _decode_tensor(name: str, values: Any, description: Any, model: Tensors, origin: Origin) -> Entries:
    if name not in model or not np.issubdtype(model[name].dtype, np.floating):
        problem = "an integer tensor, which stays as it is at the server" if name in model else "no such tensor"
        raise PayloadRejected("extra_key", origin, problem, key=shown(name), remedy=SAME_MODEL)
    coding, parameter, stream = _description(name, description, model[name].shape, origin)
    values = _values(name, values, model[name].size, origin)
    try:
        indices = _indices(coding, parameter, stream, values.size, model[name].size)
    except ValueError as error:
        raise PayloadRejected("positions", origin, str(error), key=name) from error
    return Entries(indices.astype(index_dtype(model[name].size), copy=False), values)


def _description(name: str, description: Any, shape: tuple[int, ...], origin: Origin) -> tuple[str, int, bytes]:
    types = [type(part) for part in description] if isinstance(description, list | tuple) else []
    if types not in ([str, int, bytes, list], [str, int, bytes, tuple]):
        expected = "coding, parameter, stream and shape"
        raise PayloadRejected("format", origin, key=name, expected=expected, got=shown(description))
    coding, parameter, stream, got = description
    if not all(type(length) is int for length in got) or tuple(got) != shape:
        raise PayloadRejected("shape", origin, key=name, expected=shape, got=shown(tuple(got)), remedy=SAME_MODEL)
    if coding not in CODINGS or not 0 <= parameter <= rice.MAX_PARAMETER:
        expected = f"{', '.join(CODINGS)}; 0 to {rice.MAX_PARAMETER}"
        raise PayloadRejected("format", origin, key=name, expected=expected, got=shown([coding, parameter]))
    return coding, parameter, stream


def _values(name: str, values: Any, size: int, origin: Origin) -> NDArray[np.float32]:
    if not isinstance(values, np.ndarray) or values.dtype not in VALUE_TYPES:
        got = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise PayloadRejected("dtype", origin, key=name, expected=f"an array of {' or '.join(VALUE_TYPES)}", got=got)
    if values.ndim != 1 or not 1 <= values.size <= size:
        raise PayloadRejected("count", origin, key=name, expected=f"a vector of 1 to {size} values", got=values.shape)
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        problem = f"{bad} of {values.size} values are NaN or infinite"
        raise PayloadRejected("not_finite", origin, problem, key=name, remedy="is the learning rate too high?")
    return values.astype(np.float32, copy=False)


def _indices(coding: str, parameter: int, stream: bytes, count: int, size: int) -> NDArray[Any]:
    if coding == "kept":
        return rice.decode(stream, parameter, count, size)
    if (coding == "all") != (count == size):
        raise ValueError(f"{count} values for {size} entries, coded as {coding!r}")
    if coding == "left_out":
        return _complement(rice.decode(stream, parameter, size - count, size), size)
    if stream or parameter:
        raise ValueError("a stream, where all entries are sent")
    return np.arange(size, dtype=index_dtype(size))
