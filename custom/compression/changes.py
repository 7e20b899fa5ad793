# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The entries in which one version of a model differs from another, and the file in which a site holds a version.

What travels are the new values, not differences, and nothing of an entry whose bits are the same. So what `apply` makes
is the newer model bit for bit, and a digest in its version's name proves it. Float32 and float16 entries are packed by
`wire`; a tensor that it cannot carry exactly, or of which every entry differs, travels as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from custom.checks.update import SAME_MODEL, Origin, Tensors
from custom.compression import wire
from custom.compression.wire import PayloadRejected
from custom.errors import BundleError
from custom.learning.torch_file import Array, Content, read_as
from custom.learning.weights import save_atomically
from custom.printable import shown

DIGEST_BYTES = 16


class Changes(NamedTuple):
    """What travels.

    Attributes:
        values: tensor name to the new values of some entries, or to the whole tensor.
        positions: where the former belong, as in `wire.Payload`; the latter are not mentioned.
    """

    values: dict[str, NDArray[Any]]
    positions: dict[str, Any]


class Held(NamedTuple):
    """A model with its version, as `name_version` made it."""

    version: str
    model: dict[str, NDArray[Any]]


class ChangesRejected(PayloadRejected):
    """Changes that must not be used; nothing of them has been.

    `reason` is `base` (they are of another version than the site holds), `whole` (a whole tensor does not fit the
    model), `result` (what they lead to is not what was meant), or one of PayloadRejected's.
    """


def is_numeric(model: Mapping[str, Any]) -> bool:
    """Whether all tensors are NumPy's, of numbers or booleans of at most 8 bytes: others have no version."""
    return all(
        isinstance(value, np.ndarray | np.generic)
        and value.dtype.kind in "biufc"
        and value.dtype.itemsize <= 8
        and value.dtype.isnative
        for value in model.values()
    )


def name_version(model: Tensors, *labels: Any) -> str:
    """A name that two models share only if they are equal bit for bit: the labels, then the model's digest."""
    return " ".join([*map(str, labels), _digest(model)])


def is_version(model: Tensors, version: str) -> bool:
    """Whether `name_version` gave this model that name."""
    return version.rpartition(" ")[2] == _digest(model)


def _digest(model: Tensors) -> str:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name, value in sorted(model.items()):
        digest.update(repr((name, value.dtype.str, value.shape)).encode())
        digest.update(_bits(value, np.uint8).data)
    return digest.hexdigest()


def _bits(value: Any, dtype: Any) -> NDArray[Any]:
    """[n] the bits of a tensor, in C order."""
    return np.asarray(value, order="C").reshape(-1).view(dtype)


def between(held: Tensors, model: Tensors) -> Changes | None:
    """What makes `model` of `held`; both are numeric.

    Returns:
        None where the model itself must be sent: names, shapes or dtypes differ, or it has NaN or infinite values.
    """
    if _layout(held) != _layout(model) or not all(map(_is_finite, model.values())):
        return None
    whole, kept = {}, {}
    for name, value in model.items():
        dtype = f"u{value.dtype.itemsize}"
        changed = np.flatnonzero(_bits(held[name], dtype) != _bits(value, dtype))
        if 0 < changed.size < value.size and value.dtype in wire.VALUE_TYPES:
            kept[name] = changed
        elif changed.size:
            whole[name] = value
    payload = wire.encode(model, kept)
    return Changes(whole | payload.values, payload.positions)


def _layout(model: Tensors) -> dict[str, Any]:
    return {name: (value.dtype, value.shape) for name, value in model.items()}


def _is_finite(value: NDArray[Any]) -> bool:
    return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())


def apply(
    held: dict[str, NDArray[Any]], values: Mapping[str, Any], positions: Any, version: str, origin: Origin
) -> dict[str, NDArray[Any]]:
    """Makes the newer model, in place.

    Args:
        held: the older one, as `load` returned it; of no use after an error.
        values: what came as `Changes.values`.
        positions: what came as `Changes.positions`.
        version: of the newer model.
        origin: who applies them, and in which round.

    Raises:
        PayloadRejected: the entries are not what `between` makes for this model.
        ChangesRejected: a whole tensor is not, or the result is not the version that it should be.
    """
    described = positions.get("tensors") if isinstance(positions, dict) else None
    names = described.keys() & values.keys() if isinstance(described, dict) else set()
    entries = wire.decode({name: values[name] for name in names}, positions, held, origin)
    for name, value in values.items():
        if name in entries:
            held[name].reshape(-1, copy=False)[entries[name].indices] = entries[name].values
            continue
        expected, got = (_kind(model.get(name)) for model in (held, values))
        if expected is None or expected != got:
            raise ChangesRejected("whole", origin, key=shown(name), expected=expected, got=got, remedy=SAME_MODEL)
        held[name] = value
    if not is_version(held, version):
        problem = "the model that the changes lead to is not the server's"
        remedy = "does another filter change the task between SendChanges and ApplyChanges?"
        raise ChangesRejected("result", origin, problem, key="model", remedy=remedy)
    return held


def _kind(value: Any) -> tuple[tuple[int, ...], str] | None:
    return (value.shape, value.dtype.name) if isinstance(value, np.ndarray | np.generic) else None


def save(path: Path, held: Held) -> None:
    """Writes a version; `path` is always a whole file, the old one or the new one."""
    model = {name: torch.from_numpy(np.asarray(value, order="C")) for name, value in held.model.items()}
    save_atomically({"version": held.version, "model": model}, path)


class _File(Content):
    version: str
    model: dict[str, Array]


def load(path: Path) -> Held:
    """Reads a version. Whether it is still what its name says, only `is_version` tells.

    Raises:
        BundleError: there is none, it is damaged, or holds more than tensors and plain values.
    """
    try:
        content = read_as(path, _File)
        return Held(content.version, content.model)
    except Exception as error:  # torch's own text advises to switch the protection off
        raise BundleError(
            "cannot be read: it is missing or damaged", code="site-state-damaged", key=str(path)
        ) from error
