# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A model's weights as NumPy arrays, the form in which they travel, and as files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from custom.checks.update import STATISTICS as STATISTICS
from custom.errors import BundleError

Weights = dict[str, np.ndarray]


def get_weights(model: nn.Module) -> Weights:
    """A copy of all parameters and buffers, on the CPU."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.state_dict().items()}


def set_weights(model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Loads `weights` into `model`, in place.

    Raises:
        BundleError: a key is missing or too many, or a shape differs; names the first.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        expected = tuple(own[name].shape) if name in own else "no such tensor"
        got = tuple(weights[name].shape) if name in weights else "none"
        if expected != got:
            raise BundleError(
                code="model-mismatch",
                key=name,
                expected=expected,
                got=got,
                remedy="is the model the same at every site and in the file?",
            )
    model.load_state_dict(to_tensors(weights))


def to_tensors(weights: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A copy as tensors, as in a state_dict."""
    return {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}


def weight_difference(after: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> Weights:
    """`after - before` for every floating-point tensor.

    Integer tensors (the batch counters of BatchNorm) stay out: the server keeps its own.
    """
    return {k: np.asarray(after[k] - before[k]) for k in before if np.issubdtype(before[k].dtype, np.floating)}


def save_atomically(value: Any, path: Path) -> None:
    """`torch.save` to a temporary file beside `path`, then a rename: `path` is always a whole file, old or new.

    Raises:
        OSError, RuntimeError: as torch.save; an OSError names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names none
        raise


def load_weights(path: Path) -> Weights:
    """Reads the weights from a file that FLARE's persistor, this bundle or `torch.save(state_dict)` wrote.

    Raises:
        BundleError: the file is missing, cut short, not a state_dict, or holds anything but tensors and plain values.
    """
    remedy = "expected a file with a state_dict, such as FL_global_model.pt"
    if not path.is_file():
        raise BundleError("no such file", code="model-file-missing", key=str(path), remedy=remedy)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own text advises to switch the protection off
        raise BundleError(
            "cannot be loaded safely: it is cut short, or holds more than tensors and plain values",
            code="model-file-unreadable",
            key=str(path),
            remedy=remedy,
        ) from error
    weights = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(torch.is_tensor(v) for v in weights.values()):
        raise BundleError("holds no state_dict", code="model-file-unreadable", key=str(path), remedy=remedy)
    try:
        return {name: tensor.detach().numpy() for name, tensor in weights.items()}
    except TypeError as error:  # NumPy has no bfloat16
        raise BundleError(
            str(error), code="model-file-unreadable", key=str(path), remedy="save the weights as float32"
        ) from error
