# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Preparing a data set before a job asks for it, such as on a machine that will have no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from custom.data.folders import ROOT_VARIABLE, cache_folder, expand
from custom.errors import BundleError


def prepare(name: str, path: Path) -> Path:
    """Downloads the data set to `path` unless it is there, checks and converts it; returns its folder.

    Raises:
        BundleError: no such data set, no network, or a file is missing, truncated or corrupt.
    """
    if name not in DATA_SETS:
        raise BundleError(
            "no such data set", code="option-value", key=name, remedy=f"there are: {', '.join(DATA_SETS)}"
        )
    return DATA_SETS[name](expand(path, ROOT_VARIABLE))


def _cifar10(path: Path) -> Path:
    from custom.data.cifar10 import check_folder, find_folder, official_files  # imports torch

    files = official_files()
    folder = find_folder(path, files)
    check_folder(folder, files)
    return folder


def _mnist(path: Path) -> Path:
    from custom.data.mnist_writers import open_mnist_writers

    open_mnist_writers(path, cache_folder())
    return path


def _femnist(path: Path) -> Path:
    from custom.data.leaf import open_leaf

    open_leaf(path, cache_folder())
    return path / "femnist" if (path / "femnist").exists() else path


def _ag_news(path: Path) -> Path:
    from custom.data.ag_news import open_ag_news

    open_ag_news(path)
    return path


DATA_SETS: dict[str, Callable[[Path], Path]] = {
    "cifar10": _cifar10,
    "mnist": _mnist,
    "femnist": _femnist,
    "ag_news": _ag_news,
}
