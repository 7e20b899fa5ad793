# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The images of many writers in files that are mapped into memory: converted once, opened at once.

Processes on one machine share what they read of a mapped file, and give it back when memory is short.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from custom.data.folders import CACHE_VARIABLE
from custom.data.once import make_once
from custom.errors import BundleError

VERSION = 2  # of the files below; another number makes them anew


@dataclass(frozen=True)
class Converted:
    """What lies in a folder of the cache; the arrays are those of `custom.data.writers.Writers`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    facts: dict[str, Any]


def open_converted(cache_dir: Path, name: str, files: Sequence[Path], convert: Callable[[Path], None]) -> Converted:
    """Converts `files` unless that was done before, and maps the result into memory.

    Args:
        cache_dir: where the converted files are kept, each set in a folder of its own.
        name: start of that folder's name; the rest depends on the names, sizes and times of `files`.
        files: where the images come from.
        convert: called once with an empty folder; writes `images.npy` there and calls `save`.

    Raises:
        BundleError: from `convert`, or the cache cannot be written or read.
        PermissionError: one of `files` may not be read.
    """
    folder = cache_dir / f"{name}-{_key(files)}"

    def make(work: Path) -> Path:
        convert(work)
        return work

    try:
        make_once(folder, make)
    except (OSError, Timeout) as error:
        if isinstance(error, PermissionError) and error.filename in map(str, files):
            raise  # the site may not read its data
        raise BundleError(
            "cannot be written",
            code="not-writable",
            key=str(folder),
            got=error,
            remedy=f"set {CACHE_VARIABLE} at this site to a folder that can be written to and has room for a byte a "
            "pixel, twice",
        ) from error
    try:
        return _load(folder)
    except (OSError, ValueError, EOFError, LookupError, TypeError, RecursionError) as error:
        raise BundleError(
            "a damaged file in the cache",
            code="site-state-damaged",
            key=str(folder),
            got=error,
            remedy=f"delete {folder} to have it made again",
        ) from error


def save(folder: Path, labels: NDArray[np.int64], offsets: NDArray[np.int64], **facts: Any) -> None:
    """Writes all but the images; `facts` are plain JSON types."""
    np.save(folder / "labels.npy", labels)
    np.save(folder / "offsets.npy", offsets)
    (folder / "facts.json").write_text(json.dumps(facts))


def _load(folder: Path) -> Converted:
    images, labels = (
        np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("images", "labels")
    )
    offsets = np.load(folder / "offsets.npy", allow_pickle=False)
    if not len(images) == len(labels) == offsets[-1]:
        raise ValueError(f"{len(images)} images, {len(labels)} labels, {offsets[-1]} samples of writers")
    if offsets.dtype.kind != "i" or offsets.ndim != 1 or offsets[0] != 0 or np.any(np.diff(offsets) < 0):
        raise ValueError("the samples of writers do not follow each other")
    facts = json.loads((folder / "facts.json").read_text())
    if not isinstance(facts, dict):
        raise ValueError("facts.json holds no JSON object")
    return Converted(images, labels, offsets, facts)


def _key(files: Sequence[Path]) -> str:
    """Changes when a file does."""
    facts = [(str(path), *_state(path)) for path in files]
    return hashlib.sha256(json.dumps([VERSION, facts]).encode()).hexdigest()[:16]


def _state(path: Path) -> tuple[int, int]:
    """Size and time; a link that leads nowhere has none, and is for `convert` to count."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return -1, -1
    return found.st_size, found.st_mtime_ns
