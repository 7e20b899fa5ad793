# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Do the sites of a federation train the same model on the same kind of data?"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from custom.checks.update import is_finite_number
from custom.data.remarks import LONGEST, MOST_REASONS, MOST_SENTENCES
from custom.errors import BundleError
from custom.metric_ranges import MOST_SAMPLES
from custom.printable import is_label, shown

MOST_FACTS = 100  # about a data set
MOST_ITEMS = 10_000  # of a fact, such as the names of classes
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
    """Weights are arrays of numbers by name, some of them floating-point; facts about a data set are as documented.

    Raises:
        BundleError: they are something else.
    """
    check_facts(name, info)
    for key, value in weights.items():
        numeric = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub"
        if not (isinstance(key, str) and key.isprintable() and numeric):
            got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise BundleError(
                code="reply-malformed",
                site=name,
                key=f"weights {shown(key)}",
                expected="an array of numbers by name",
                got=got,
            )


def check_facts(name: str, info: Any) -> None:
    """Facts about a data set (`SiteData.describe`) are a dictionary with its name, of numbers and short texts.

    Raises:
        BundleError: they are something else.
    """
    if isinstance(info, dict) and _is_line(info.get("dataset")) and len(info) <= MOST_FACTS:
        wrong = [key for key, value in info.items() if not (is_label(key) and _is_plain(value))]
        if not wrong:
            return
        key, got = f"fact about its data {shown(wrong[0])}", info[wrong[0]]
        expected = f"numbers, and lines of at most {LONGEST} characters"
    else:
        key, got = "facts about its data", info
        expected = f"a dictionary of at most {MOST_FACTS}, with the name of the data set, a line, as dataset"
    raise BundleError(code="reply-malformed", site=name, key=key, expected=expected, got=shown(got))


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(is_label, value)) and _is_plain(list(value.values()))
    if isinstance(value, list | tuple):
        return len(value) <= MOST_ITEMS and all(map(_is_scalar, value))
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool) or is_finite_number(value) or _is_line(value)


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
    """What a site says of its data: whole numbers by name, and a finite weight, from 0 to a billion.

    Raises:
        BundleError: they are something else.
    """
    whole = isinstance(samples, dict) and all(
        is_label(key) and type(count) is int and 0 <= count <= MOST_SAMPLES for key, count in samples.items()
    )
    if not whole:
        raise BundleError(
            code="reply-malformed",
            site=name,
            key="samples",
            expected=f"whole numbers from 0 to {MOST_SAMPLES:g} by name",
            got=shown(samples),
        )
    if isinstance(weight, bool) or not (is_finite_number(weight) and 0 <= weight <= MOST_SAMPLES):
        expected = f"a number from 0 to {MOST_SAMPLES:g}"
        raise BundleError(code="reply-malformed", site=name, key="weight", expected=expected, got=shown(weight))


def check_remarks(name: str, left_out: Any, warnings: Any, notes: Any) -> None:
    """What a site says it left out: whole numbers from 0 by a short text, not too many; warnings and notes: such texts.

    Raises:
        BundleError: they are something else.
    """
    good = isinstance(left_out, dict) and len(left_out) <= MOST_REASONS
    if not (
        good
        and all(_is_line(key) and type(value) is int and 0 <= value <= MOST_SAMPLES for key, value in left_out.items())
    ):
        raise BundleError(
            code="reply-malformed",
            site=name,
            key="left_out",
            expected=f"at most {MOST_REASONS} whole numbers from 0 to {MOST_SAMPLES:g} by reason",
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
                key=shown(key),
                expected=f"{shown(reference.get(key))} as at {reference_name}",
                got=shown(info.get(key)),
                remedy=f'check {_PATHS.get(key, "dataset_path")} there, and set on_missing to "error" so that no site '
                "falls back alone",
            )


def _kind(array: np.ndarray | None) -> str:
    return "no such tensor" if array is None else f"{tuple(array.shape)} {array.dtype}"
