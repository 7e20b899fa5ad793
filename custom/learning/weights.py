# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A model's weights as NumPy arrays, the form in which they travel, and as files."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from custom.errors import BundleError
from custom.learning.model_file import read_state_dict, unreadable

Weights = dict[str, np.ndarray]
_FULL = (errno.ENOSPC, errno.EDQUOT)


def get_weights(model: nn.Module) -> Weights:
    """A copy of all parameters and buffers, on the CPU; bfloat16, which NumPy does not have, as float32.

    Raises:
        BundleError: the model has no floating-point tensors, or one that no array can hold.
    """
    weights = {}
    for name, value in model.state_dict().items():
        if problem := _unfit(name, value):
            expected, got, remedy = problem
            raise BundleError(code="model-unfit", key=f"model {name}", expected=expected, got=got, remedy=remedy)
        weights[name] = to_array(value).copy()
    if not any(np.issubdtype(value.dtype, np.floating) for value in weights.values()):
        raise BundleError(
            code="model-unfit",
            key="model",
            expected="a model with weights, that is floating-point parameters or buffers",
            got=f"{type(model).__name__} with {len(weights) or 'no'} tensors, none of them floating-point",
            remedy="is the model built in its constructor, with its layers as attributes?",
        )
    return weights


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as an array of its type, or float32 if it is bfloat16; may share its memory.

    Raises:
        TypeError: no array can hold it.
    """
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def travels_as_float32(model: nn.Module) -> bool:
    """Has the model bfloat16 weights? They are float32 wherever they are arrays, which is exact."""
    return any(value.dtype == torch.bfloat16 for value in model.state_dict().values() if torch.is_tensor(value))


def as_held(model: nn.Module, received: Weights) -> Weights:
    """What `model` holds after `set_weights(model, received)`: the same, or rounded if it computes in bfloat16."""
    return get_weights(model) if travels_as_float32(model) else received


def _unfit(name: str, value: Any) -> tuple[str, str, str] | None:
    """What was expected, what came, and the remedy, if no array can hold an entry of a state_dict."""
    floating = "train the model in floating point, and quantise what comes out of the job"
    if not torch.is_tensor(value):
        if "_packed_params" in name:
            return "floating-point weights", "a quantised layer", floating
        remedy = "keep it in a buffer (register_buffer) or out of the state_dict"
        return "tensors only, since nothing else travels", f"{type(value).__name__} from get_extra_state", remedy
    if nn.parameter.is_lazy(value):
        remedy = "give the layer its input size, as nn.Linear(20, 32) in place of nn.LazyLinear(32)"
        return "a tensor that has a shape", "a lazy layer, which has none before its first batch", remedy
    if value.is_quantized:
        return "floating-point weights", f"a quantised tensor ({value.dtype})", floating
    if value.is_meta:
        return "a tensor with values", "one on the device meta", "build the model on the CPU"
    if value.layout != torch.strided:
        return "a dense tensor", f"one in the layout {value.layout}", "call to_dense() on it"
    if value.is_complex():
        remedy = "keep it as two real numbers (torch.view_as_real), or out of the state_dict (persistent=False)"
        return "real numbers", f"complex ones ({value.dtype})", remedy
    try:
        to_array(value[:0] if value.dim() else value)
    except (TypeError, RuntimeError):  # such as float8, or a subclass of torch.Tensor
        return "a type that NumPy has", str(value.dtype), "keep the weights as float32, bfloat16 or float16"
    return None


def set_weights(model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Loads `weights` into `model`, in place, in the types of the model.

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
        BundleError: the disk is full, or the folder cannot be written to.
    """
    try:
        _save(value, path)
    except (OSError, RuntimeError) as error:
        # torch makes of a full disk "unexpected pos 25805696 vs 25805584", and leaves the cause in the context.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        if cause.errno in _FULL:
            remedy = "free some space, or put the workspace on another disk"
            raise BundleError("no space left on device", code="disk-full", key=str(path), remedy=remedy) from error
        problem = f"cannot be written ({cause.strerror or cause})"
        raise BundleError(problem, code="not-writable", key=str(path)) from error


def _save(value: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_weights(path: Path) -> Weights:
    """Reads the weights from a file that FLARE's persistor, this bundle, torch.save, Lightning or safetensors wrote.

    bfloat16 becomes float32.

    Raises:
        BundleError: see `custom.learning.model_file`; or a tensor is of a type that no array can hold.
    """
    weights = {}
    for name, tensor in read_state_dict(path).items():
        if problem := _unfit(name, tensor):
            raise unreadable(path, f"{name}: expected {problem[0]}, got {problem[1]}", "save the weights as float32")
        weights[name] = to_array(tensor)
    return weights
