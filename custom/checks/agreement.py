# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Do the sites of a federation train the same model on the same kind of data?"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from custom.checks.update import is_finite_number, shown
from custom.data.remarks import LONGEST, MOST_REASONS, MOST_SENTENCES
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
            raise BundleError(
                code="weights-not-finite", site=name, key=key, expected="finite values", got=f"{bad} NaN or infinite"
            )


def check_weights(name: str, weights: Any, info: Any) -> None:
    """Weights are arrays of numbers by name, some of them floating-point; facts about a data set are a dictionary.

    Raises:
        BundleError: they are something else.
    """
    if not isinstance(info, dict):
        raise BundleError(
            code="reply-malformed", site=name, key="facts about its data", expected="a dictionary", got=shown(info)
        )
    for key, value in weights.items():
        numeric = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub"
        if not (isinstance(key, str) and numeric):
            got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise BundleError(
                code="reply-malformed",
                site=name,
                key=f"weights {shown(key)}",
                expected="an array of numbers by name",
                got=got,
            )


def check_not_empty(name: str, weights: Mapping[str, np.ndarray]) -> None:
    """A model has floating-point tensors.

    Raises:
        BundleError: this one has none.
    """
    if not any(np.issubdtype(value.dtype, np.floating) for value in weights.values()):
        raise BundleError(
            code="model-unfit",
            site=name,
            key="weights",
            expected="a model with floating-point tensors",
            got=f"{len(weights) or 'no'} tensors, none of them floating-point",
            remedy="see the log of this site for what happened to its model",
        )


def check_samples(name: str, samples: Any, weight: Any) -> None:
    """What a site says of its data: whole numbers from 0 by name, and a finite weight from 0.

    Raises:
        BundleError: they are something else.
    """
    whole = isinstance(samples, dict) and all(
        isinstance(key, str) and isinstance(count, int) and not isinstance(count, bool) and count >= 0
        for key, count in samples.items()
    )
    if not whole:
        raise BundleError(
            code="reply-malformed",
            site=name,
            key="samples",
            expected="whole numbers from 0 by name",
            got=shown(samples),
        )
    if not (is_finite_number(weight) and weight >= 0):
        raise BundleError(
            code="reply-malformed", site=name, key="weight", expected="a finite number from 0", got=shown(weight)
        )


def check_remarks(name: str, left_out: Any, warnings: Any, notes: Any) -> None:
    """What a site says it left out: whole numbers from 0 by a short text, not too many; warnings and notes: such texts.

    Raises:
        BundleError: they are something else.
    """
    good = isinstance(left_out, dict) and len(left_out) <= MOST_REASONS
    if not (good and all(_is_line(key) and type(value) is int and value >= 0 for key, value in left_out.items())):
        raise BundleError(
            code="reply-malformed",
            site=name,
            key="left_out",
            expected=f"at most {MOST_REASONS} whole numbers from 0 by reason",
            got=shown(left_out),
        )
    for key, texts in (("data_warnings", warnings), ("data_notes", notes)):
        if not (isinstance(texts, list) and len(texts) <= MOST_SENTENCES and all(map(_is_line, texts))):
            expected = f"at most {MOST_SENTENCES} printable lines of at most {LONGEST} characters"
            raise BundleError(code="reply-malformed", site=name, key=key, expected=expected, got=shown(texts))


def _is_line(text: Any) -> bool:
    return isinstance(text, str) and text.isprintable() and len(text) <= LONGEST


def odd_ones(models: Mapping[str, Mapping[str, np.ndarray]]) -> set[str]:
    """The sites whose values are not those of most sites; all of them if no model is that of more than half."""
    digests = {site: _digest(weights) for site, weights in models.items()}
    usual, number = Counter(digests.values()).most_common(1)[0]
    return {site for site, digest in digests.items() if digest != usual or 2 * number <= len(models)}


def _digest(weights: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(np.ascontiguousarray(weights[key]).data)
    return digest.hexdigest()


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
                code="sites-differ-in-model",
                site=name,
                key=key,
                expected=f"{expected} as at {reference_name}",
                got=got,
                remedy=_SAME_MODEL,
            )


def check_same_data(reference_name: str, reference: Mapping[str, Any], name: str, info: Mapping[str, Any]) -> None:
    """Same data set, classes and input shape (`SiteData.describe`).

    Raises:
        BundleError: names the site and the first difference.
    """
    for key in sorted(reference.keys() | info.keys()):
        if reference.get(key) != info.get(key):
            raise BundleError(
                code="sites-differ-in-data",
                site=name,
                key=key,
                expected=f"{reference.get(key)} as at {reference_name}",
                got=info.get(key),
                remedy=f'check {_PATHS.get(key, "dataset_path")} there, and set on_missing to "error" so that no site '
                "falls back alone",
            )


def _kind(array: np.ndarray | None) -> str:
    return "no such tensor" if array is None else f"{tuple(array.shape)} {array.dtype}"
