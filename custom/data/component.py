# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the data components have in common: settings, the roster, and what to do when the data are not to be had."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, TypeVar

from custom.data.download import Unavailable
from custom.data.folders import DEFAULT_PATH, NoHome, contents, data_root, given
from custom.errors import BundleError

Source = TypeVar("Source")

logger = logging.getLogger(__name__)


def check(good: Any, key: str, expected: str, got: object) -> None:
    """Raises BundleError about the argument `key` unless it is `good`."""
    if not good:
        raise BundleError(
            code="setting-value",
            key=key,
            expected=expected,
            got=repr(got),
            remedy="correct it in config_fed_client.json",
        )


def check_choice(key: str, got: object, choices: tuple[object, ...]) -> None:
    """Raises BundleError unless `got` is one of `choices`."""
    check(got in choices, key, "one of " + ", ".join(map(str, choices)), got)


def check_fraction(key: str, got: object) -> None:
    """Raises BundleError unless `got` is in (0, 1)."""
    check(is_number(got) and 0 < got < 1, key, "a number between 0 and 1", got)


def check_folder_name(key: str, got: object) -> None:
    """Raises BundleError unless `got` may be the path of a folder."""
    check(isinstance(got, str) and got, key, "the path of a folder", got)


def is_number(value: object) -> TypeGuard[int | float]:
    """A finite number, and not True or False."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def missing_is_error(on_missing: str) -> bool:
    """Is it an error when data are not to be had? A site may insist, by FLARE_ON_MISSING=error in its environment.

    Raises:
        BundleError: FLARE_ON_MISSING is neither `embedded` nor `error`.
    """
    insists = os.environ.get("FLARE_ON_MISSING") or on_missing
    if insists not in ("embedded", "error"):
        raise BundleError(
            code="setting-value", key="FLARE_ON_MISSING of this site", expected="embedded or error", got=repr(insists)
        )
    return "error" in (on_missing, insists)


def place_in_roster(name: str, roster: Sequence[str]) -> int:
    """Place of the site among the sorted names of all sites, from 0.

    Raises:
        BundleError: it is not among them.
    """
    names = sorted(set(roster))
    if name not in names:
        raise BundleError(
            "this site has no share in the partition",
            code="site-not-in-roster",
            site=name,
            key="roster",
            expected=f"one of {', '.join(names) or 'no sites'}",
            got=name,
            remedy="add the site to the job, or set partition to none if it holds its own data",
        )
    return names.index(name)


def or_embedded(
    load: Callable[[], Source],
    embedded: Callable[[], Source],
    on_missing: str,
    names: str,
    dataset_path: str = DEFAULT_PATH,
    choice: str = "digits",
) -> Source:
    """What `load` returns, or the embedded data, with a loud warning, if `on_missing` allows it.

    Files that are there and damaged are an error, whatever `on_missing` says, and so is a place that was given (see
    `custom.data.folders`) and neither holds the data nor lets them be downloaded to it.

    Args:
        load: raises Unavailable when the data are not there and cannot be downloaded.
        embedded: makes the data that ship with the software.
        on_missing: `embedded` or `error`; FLARE_ON_MISSING=error in the site's environment goes before it.
        names: for the warning: the embedded data set, and what it stands in for, as in `DIGITS, NOT ON CIFAR-10`.
        dataset_path: as the job has it.
        choice: the value of `dataset` that asks for the embedded data.

    Raises:
        BundleError: from `load`, or a place that was given does not fit.
    """
    place = given(dataset_path)
    seen = contents(data_root(dataset_path)) if place else ""  # before a download makes folders there
    try:
        return load()
    except (Unavailable, NoHome) as error:
        if missing_is_error(on_missing):
            raise
        if place:
            raise BundleError(
                "does not hold the data, and the embedded data do not take their place where a folder was given",
                code="data-missing",
                key=place,
                got=f"{seen} ({error})",
                remedy=f"correct it, or ask for the embedded data: python -m bundle run JOB --set dataset={choice}",
            ) from error
        logger.warning("TRAINING ON THE EMBEDDED %s. %s", names, error)
        return embedded()
