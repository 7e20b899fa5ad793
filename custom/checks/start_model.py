# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Weights of a file made to fit the model of the sites: wrappers taken off the names, and the sites' number types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from custom.errors import BundleError

Arrays = Mapping[str, NDArray[Any]]
COMPILED = "_orig_mod."  # torch.compile
MOST_PREFIXES = 3  # module. of DataParallel, model. of Lightning, one of the user's own


def fit_to_sites(source: str, weights: Arrays, reference: Arrays) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The weights under the names and in the types of the sites, and a note on each change.

    Args:
        source: the file, for messages.
        weights: of the file.
        reference: of a site.

    Raises:
        BundleError: names or shapes differ, or a value would not survive the conversion.
    """
    renamed, notes = _renamed(weights, reference)
    if renamed.keys() != reference.keys():
        raise _other_names(source, renamed, reference)
    fitted, kinds = {}, set()
    for name, expected in reference.items():
        value = renamed[name]
        if value.shape != expected.shape:
            raise _mismatch(source, name, f"{expected.shape} as at the sites", value.shape)
        if value.dtype != expected.dtype:
            kinds.add(f"{value.dtype} to {expected.dtype}")
            value = _converted(source, name, value, expected.dtype)
        fitted[name] = value
    return fitted, notes + [f"converted {kind}" for kind in sorted(kinds)]


def _renamed(weights: Arrays, reference: Arrays) -> tuple[Arrays, list[str]]:
    """As they are if that fits, else without what wrappers put before the names if then they fit."""
    names = {name: name for name in weights}
    removed = ""
    for attempt in range(MOST_PREFIXES + 2):
        if set(names.values()) == reference.keys():
            note = [f"names without {removed.strip()}"] if removed else []
            return {new: weights[old] for old, new in names.items()}, note
        if attempt == 0:
            bare = {old: new.replace(COMPILED, "") for old, new in names.items()}
            removed += COMPILED if bare != names else ""
        else:
            first = {new.partition(".")[0] for new in names.values()}
            if len(first) != 1 or not all("." in new for new in names.values()):
                break
            removed += f" {first.pop()}."
            bare = {old: new.partition(".")[2] for old, new in names.items()}
        if len(set(bare.values())) < len(bare):
            break
        names = bare
    return weights, []


def _converted(source: str, name: str, value: NDArray[Any], wanted: np.dtype[Any]) -> NDArray[Any]:
    """In the type of the sites; floating-point values may be rounded, and nothing may overflow or change otherwise."""
    both_floating = np.issubdtype(value.dtype, np.floating) and np.issubdtype(wanted, np.floating)
    with np.errstate(over="ignore", invalid="ignore"):
        converted = value.astype(wanted)
    same = np.isfinite(converted).sum() == np.isfinite(value).sum() if both_floating else np.all(converted == value)
    if not same:
        raise _mismatch(source, name, f"values that {wanted} holds, as at the sites", f"{value.dtype} beyond that")
    return converted


def _other_names(source: str, weights: Arrays, reference: Arrays) -> BundleError:
    missing, extra = sorted(reference.keys() - weights.keys()), sorted(weights.keys() - reference.keys())
    parts = [
        f"{len(found)} {what} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for found, what in ((missing, "missing"), (extra, "that the sites do not have"))
        if found
    ]
    return _mismatch(source, (missing or extra)[0], f"the {len(reference)} tensors of the sites", " and ".join(parts))


def _mismatch(source: str, name: str, expected: object, got: object) -> BundleError:
    return BundleError(
        code="model-mismatch",
        key=f"{source} {name}",
        expected=expected,
        got=got,
        remedy="is it a file of the model that this job trains?",
    )
