# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Do the sites of a federation train the same model on the same kind of data?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from custom.errors import BundleError

_SAME_MODEL = "is the model the same at every site?"
_PATHS = dict.fromkeys(("tokenizer", "encoder_embedded"), "model_name_or_path")


def check_finite(name: str, weights: Mapping[str, np.ndarray]) -> None:
    """Every value is a finite number.

    Raises:
        BundleError: names the first tensor that has another.
    """
    for key in sorted(weights):
        bad = int(np.size(weights[key]) - np.count_nonzero(np.isfinite(weights[key])))
        if bad:
            raise BundleError(site=name, key=key, expected="finite values", got=f"{bad} NaN or infinite")


def check_same_model(
    reference_name: str, reference: Mapping[str, np.ndarray], name: str, weights: Mapping[str, np.ndarray]
) -> None:
    """Same keys, shapes and dtypes.

    Raises:
        BundleError: names the site and the first difference in key order.
    """
    for key in sorted(reference.keys() | weights.keys()):
        expected, got = _kind(reference.get(key)), _kind(weights.get(key))
        if expected != got:
            raise BundleError(
                site=name, key=key, expected=f"{expected} as at {reference_name}", got=got, remedy=_SAME_MODEL
            )


def check_same_data(reference_name: str, reference: Mapping[str, Any], name: str, info: Mapping[str, Any]) -> None:
    """Same data set, classes and input shape (`SiteData.describe`).

    Raises:
        BundleError: names the site and the first difference.
    """
    for key in sorted(reference.keys() | info.keys()):
        if reference.get(key) != info.get(key):
            raise BundleError(
                site=name,
                key=key,
                expected=f"{reference.get(key)} as at {reference_name}",
                got=info.get(key),
                remedy=f'check {_PATHS.get(key, "dataset_path")} there, and set on_missing to "error" so that no site '
                "falls back alone",
            )


def _kind(array: np.ndarray | None) -> str:
    return "no such tensor" if array is None else f"{tuple(array.shape)} {array.dtype}"
