# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Where a site's data and its converted data lie: the job's settings, and the site's variables that override them.

- FLARE_DATA_ROOT overrides `dataset_path`;
- FLARE_CACHE_DIR overrides `cache_dir`.

A path that was given, by a variable or by a setting other than the default, is meant: where it does not hold the data,
that is an error, and no reason to train on embedded data.
"""

from __future__ import annotations

import os
from pathlib import Path

from custom.errors import BundleError

DEFAULT_PATH = "~/.cache/flare-bundle"
ROOT_VARIABLE, CACHE_VARIABLE = "FLARE_DATA_ROOT", "FLARE_CACHE_DIR"
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
MOST_NAMED = 5  # folders that an error names
MOST_LOOKED_AT = 50  # files of a folder

overridden: set[str] = set()  # each `dataset_path` that FLARE_DATA_ROOT stood in for; cleared by who reads data anew


class NoHome(BundleError):
    """Data would be in the home folder, and this user has none."""


def expand(path: str | Path, variable: str) -> Path:
    """The absolute path, with `~` replaced.

    Args:
        path: as it was given.
        variable: of the environment, that the user may set instead.

    Raises:
        BundleError: there is no home folder, as in some containers.
    """
    return without_tilde(path, f"set HOME, or {variable} to a folder of this site").absolute()


def without_tilde(path: str | Path, remedy: str = "set HOME, or write the whole path") -> Path:
    """The path, with `~` replaced.

    Raises:
        BundleError: there is no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise BundleError("this user has no home folder", code="not-writable", key=str(path), remedy=remedy) from error


def data_root(dataset_path: str) -> Path:
    """The folder that holds data sets; the environment variable FLARE_DATA_ROOT overrides the argument.

    Raises:
        NoHome: it is in the home folder, and there is none.
    """
    if (root := os.environ.get(ROOT_VARIABLE)) and dataset_path != DEFAULT_PATH:
        overridden.add(dataset_path)
    try:
        return expand(root or dataset_path, ROOT_VARIABLE)
    except BundleError as error:
        raise NoHome(f"there are no data: {error}", code="data-missing") from error


def overrides() -> list[str]:
    """A sentence about each `dataset_path` that FLARE_DATA_ROOT has overridden while the data were read."""
    return [f"the data are in {ROOT_VARIABLE}, which overrides dataset_path={path}" for path in sorted(overridden)]


def cache_folder(cache_dir: str = DEFAULT_PATH) -> Path:
    """The folder for converted data; the environment variable FLARE_CACHE_DIR overrides the argument.

    Raises:
        BundleError: it is in the home folder, and there is none.
    """
    return expand(os.environ.get(CACHE_VARIABLE) or cache_dir, CACHE_VARIABLE)


def given(dataset_path: str) -> str:
    """Who said where the data are, `FLARE_DATA_ROOT /x` or `dataset_path /x`; empty where nobody did."""
    if root := os.environ.get(ROOT_VARIABLE):
        return f"{ROOT_VARIABLE} {root}"
    return f"dataset_path {dataset_path}" if dataset_path != DEFAULT_PATH else ""


def contents(folder: Path) -> str:
    """What is in a folder, for errors: the names of a few folders in it, and how many files."""
    if not folder.is_dir():
        return "a file" if folder.exists() else "no such folder"
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [path.name for path in entries if path.is_dir()]
    more = f" and {len(folders) - MOST_NAMED} more" if len(folders) > MOST_NAMED else ""
    named = f"the folders {', '.join(folders[:MOST_NAMED])}{more}" if folders else "no folder"
    files = len(entries) - len(folders)
    return f"{named} and {files} file{'s' * (files != 1)}"


def check_no_images(root: Path, expected: str) -> None:
    """A published data set does not belong into a folder of images, or of folders of images.

    Raises:
        BundleError: it is such a folder.
    """
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    if _has_images(root) or (folders and all(map(_has_images, folders))):
        raise BundleError(
            "a folder of images of your own, which this job does not read",
            code="data-missing",
            key=str(root),
            expected=expected,
            got=contents(root),
            remedy="see docs/own-job.md for a job on data of your own",
        )


def _has_images(folder: Path) -> bool:
    first = zip(range(MOST_LOOKED_AT), folder.iterdir() if folder.is_dir() else (), strict=False)
    return any(path.suffix.lower() in IMAGE_SUFFIXES for _, path in first)
