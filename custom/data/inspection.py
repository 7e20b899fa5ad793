# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Validates a site's data before training: every label, and every input that could be NaN.

A single NaN makes all weights NaN, and a label out of range ends training on a CPU and the whole process on CUDA. Here
the sample that is to blame is named by split and row; rows are counted from 0 in the fixed order of the split.
"""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from custom.data.site_data import FiniteInputs, SiteData
from custom.errors import BundleError

SPLITS = ("train", "validation", "test")
CACHED_VALUES = 2**18  # of inputs in a batch: 1 MB, so that what was read is still in the cache when it is checked
FEWEST, MOST_VALUES = 16, 2**21  # samples of large images at once, if they are no more values than that
_CPU = torch.device("cpu")


def check_description(info: Any) -> None:
    """Raises BundleError unless `info` is what `SiteData.describe` promises."""
    expected = {
        "dataset": (lambda value: isinstance(value, str), "a name"),
        "embedded": (lambda value: isinstance(value, bool), "true or false"),
        "num_classes": (lambda value: type(value) is int and value >= 1, "a whole number from 1"),
        "input_shape": (lambda value: isinstance(value, list | tuple) and _whole(value), "a list of whole numbers"),
    }
    if not isinstance(info, Mapping):
        raise _malformed("describe()", "a dictionary", type(info).__name__)
    for key, (good, wanted) in expected.items():
        if key not in info or not good(info[key]):
            raise _malformed(f"describe() {key}", wanted, repr(info[key]) if key in info else "none")
    try:
        json.dumps(dict(info), allow_nan=False)
    except (TypeError, ValueError) as error:
        remedy = "give numbers, text, lists and dictionaries of these: sorted(a_set), an_array.tolist()"
        raise _malformed("describe()", "plain JSON types and finite numbers", one_line(error), remedy) from error


def check_samples(data: SiteData, batch_size: int | None = None) -> None:
    """Looks at all samples of all splits once; of data with `FiniteInputs`, at their labels only.

    Args:
        data: of a site; its `describe` has been checked.
        batch_size: samples to read at once; if None, as many as a processor's cache holds.

    Raises:
        BundleError: names the first sample with a NaN, an infinite value or a label that is not right.
    """
    info = data.describe()
    num_classes, values = info["num_classes"], math.prod(info["input_shape"])
    at_once = batch_size or max(CACHED_VALUES // values, min(FEWEST, MOST_VALUES // values), 1)
    for split in SPLITS:
        size = data.size(split)
        if type(size) is not int or size < 0:
            raise _malformed(f"size({split!r})", "a whole number from 0", repr(size))
        if isinstance(data, FiniteInputs):
            _check_labels(data.labels_of(split), num_classes, split, 0)
            continue
        row = 0
        for inputs, labels in _batches(data, split, at_once) if size else ():
            _check_labels(labels, num_classes, split, row)
            for tensor in tensors_in(inputs):
                _check_inputs(tensor, len(labels), split, row)
            row += len(labels)
        if row != size:
            raise _malformed(f"{split} split", f"{size} samples, as size says", f"{row} in all batches")


def tensors_in(inputs: Any) -> Iterator[torch.Tensor]:
    """All tensors of a model's input, which is one, or a dictionary or sequence of them.

    Raises:
        BundleError: it holds an array of NumPy.
    """
    if torch.is_tensor(inputs):
        yield inputs
    elif isinstance(inputs, np.ndarray):
        raise _malformed("batches()", "inputs that are tensors", "an array of NumPy", "use torch.from_numpy")
    elif isinstance(inputs, Mapping | list | tuple):
        for part in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from tensors_in(part)


def where(error: BaseException) -> str:
    """File and line of the user's own code that led to an error; empty if there is none."""
    ours = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith(ours)]
    return f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""


def one_line(error: BaseException) -> str:
    """Type, first line and place of an error."""
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}{where(error)}"


def _batches(data: SiteData, split: str, batch_size: int) -> Iterator[tuple[Any, Any]]:
    row = 0
    try:
        for batch in data.batches(split, batch_size, _CPU):
            if not isinstance(batch, list | tuple) or len(batch) != 2:
                raise _malformed("batches()", "pairs of inputs and labels", type(batch).__name__)
            yield batch[0], batch[1]
            row += len(batch[1])
    except (BundleError, GeneratorExit):
        raise
    except Exception as error:
        raise _malformed(f"{split} row {row}", "a batch that can be read", one_line(error)) from error


def _check_labels(labels: Any, num_classes: int, split: str, first: int) -> None:
    key = f"{split} row {first}"
    if not torch.is_tensor(labels):
        raise _malformed(f"{key} label", "an int64 tensor of shape (batch,)", type(labels).__name__)
    if labels.dim() != 1 or labels.dtype != torch.int64:
        remedy = "give the number of the class: y.argmax(1) of one-hot labels, y.flatten() of a column, y.long()"
        got = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise _malformed(f"{key} label", "int64 of shape (batch,)", got, remedy)
    odd = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(odd):
        place = int(odd[0])
        raise _malformed(
            f"{split} row {first + place} label",
            f"0 to {num_classes - 1}, since describe says {num_classes} classes",
            int(labels[place]),
            "number the classes from 0, alike at all sites, or correct num_classes of the data",
        )


def _check_inputs(tensor: torch.Tensor, samples: int, split: str, first: int) -> None:
    if not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(tensor.sum())):
        return  # the sum is the fastest way to see that all is well
    bad = (~torch.isfinite(tensor)).nonzero()
    if not len(bad):
        return
    place = int(bad[0, 0]) if tensor.dim() and len(tensor) == samples else 0
    value = tensor[tuple(bad[0].tolist())].item()
    raise BundleError(
        code="data-not-finite",
        key=f"{split} row {first + place}",
        expected="finite inputs",
        got=f"{value} at {bad[0, 1:].tolist()} of the sample, and {len(bad)} such values in the batch",
        remedy="fill in or leave out missing values where the data are read",
    )


def _whole(values: Any) -> bool:
    return all(type(value) is int and value >= 1 for value in values)


def _malformed(key: str, expected: str, got: object, remedy: str = "correct the data component") -> BundleError:
    return BundleError(code="data-malformed", key=key, expected=expected, got=got, remedy=remedy)
