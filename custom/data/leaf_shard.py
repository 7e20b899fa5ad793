# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""One JSON file of LEAF's FEMNIST, parsed and looked at; see `custom.data.leaf` for the layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from custom.data.download import UNREADABLE, read_bytes
from custom.errors import BundleError

SIDE = 28
PIXELS = SIDE * SIDE
NUM_CLASSES = 62  # digits, capitals, small letters

MIN_SAMPLES = 2  # a writer with fewer is left out: one sample to personalise with, one to score on
SCRIPTS = "LEAF's scripts of March 2020 or later"

User = tuple[str, NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class _Samples:
    """`x` and `y` of a user as arrays."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class _Problem:
    """What is wrong with `x` and `y` of a user, whose name the parser does not know yet."""

    problem: str
    expected: str
    got: str


def read_shard(path: Path) -> Iterator[User]:
    """Each user of the file with images, uint8 of shape (samples, 784), and int64 labels of shape (samples,).

    LEAF's scripts of before March 2020 left users with fewer than two samples in `user_data` and not in `users`; they
    are returned as well.

    Raises:
        BundleError: names the file, and the user where it is about one.
    """
    content = _parse(path)
    users, counts, user_data = _fields(path, content)
    for user, count in zip(users, counts, strict=True):
        samples = user_data[user]
        if not isinstance(samples, _Samples):
            is_problem = isinstance(samples, _Problem)
            problem = samples if is_problem else _Problem("not LEAF's layout", "lists x and y", type(samples).__name__)
            raise refused(f"{path} {user}", problem.problem, problem.expected, problem.got)
        if len(samples.labels) != count:
            got = f"{len(samples.labels)} images and labels"
            raise refused(f"{path} {user}", "num_samples disagrees with the data", f"{count} samples", got)
        yield user, samples.images, samples.labels


def refused(key: str, problem: str, expected: str, got: str) -> BundleError:
    """The error about a file, or about a user in it."""
    return BundleError(
        problem,
        code="data-malformed",
        key=key,
        expected=expected,
        got=got,
        remedy=f"make the file again with {SCRIPTS}",
    )


def _parse(path: Path) -> Any:
    try:
        # Text, and not bytes, since json would keep both.
        return json.loads(read_bytes(path).decode(), object_pairs_hook=_pack)
    except PermissionError:
        raise
    except (*UNREADABLE, ValueError, RecursionError) as error:
        raise refused(str(path), "cut off or damaged", "JSON", f"{error}") from error


def _fields(path: Path, content: Any) -> tuple[list[str], list[int], dict[str, Any]]:
    """`users`, `num_samples` and `user_data`, which must belong together."""
    found = content if isinstance(content, dict) else {}
    users, counts, user_data = (found.get(key) for key in ("users", "num_samples", "user_data"))
    if not (isinstance(users, list) and isinstance(counts, list) and isinstance(user_data, dict)):
        got = f"the keys {', '.join(found) or 'none'}"
        raise refused(str(path), "not LEAF's layout", "lists users and num_samples, and user_data by user", got)
    if len(users) != len(counts):
        raise refused(str(path), "num_samples disagrees with users", f"{len(users)} numbers", f"{len(counts)}")
    users = list(map(str, users))
    names = set(users)
    for user, samples in user_data.items():
        if user not in names and (count := _few(samples)) is not None:
            users, counts = [*users, user], [*counts, count]
            user_data[user] = samples or _Samples(np.empty((0, PIXELS), np.uint8), np.empty(0, np.int64))
    names = set(users)
    if len(names) != len(users) or names != user_data.keys():
        odd = sorted(names ^ user_data.keys()) or sorted(user for user in names if users.count(user) > 1)
        raise refused(str(path), "users disagrees with user_data", "each user once in both", ", ".join(odd[:3]))
    return users, counts, user_data


def _few(samples: Any) -> int | None:
    """How many samples a user has, if they are too few to be used; else None."""
    count = len(samples.labels) if isinstance(samples, _Samples) else 0 if samples == {} else MIN_SAMPLES
    return count if count < MIN_SAMPLES else None


def _pack(pairs: list[tuple[str, Any]]) -> Any:
    """What becomes of a JSON object. `x` and `y` become arrays at once: lists take 30 times as much memory."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is there twice")
    images, labels = fields.get("x"), fields.get("y")
    if not (isinstance(images, list) and isinstance(labels, list)):
        return fields
    if len(images) != len(labels):
        return _Problem("x and y disagree", f"{len(images)} labels, one an image", f"{len(labels)}")
    packed = _pack_images(images)
    if isinstance(packed, _Problem):
        return packed
    for label in labels:
        if type(label) is not int or not 0 <= label < NUM_CLASSES:
            return _Problem("a label that cannot be", f"integers from 0 to {NUM_CLASSES - 1}", repr(label)[:40])
    return _Samples(packed, np.array(labels, dtype=np.int64))


def _pack_images(images: list[Any]) -> NDArray[np.uint8] | _Problem:
    for image in images:
        if not isinstance(image, list) or len(image) != PIXELS:
            got = f"{len(image)}" if isinstance(image, list) else type(image).__name__
            return _Problem("an image of another size", f"lists of {PIXELS} pixels", got)
    try:
        pixels = np.fromiter(chain.from_iterable(images), np.float64, len(images) * PIXELS)
    except (TypeError, ValueError, OverflowError) as error:
        return _Problem("a pixel that is not a number", "numbers in [0, 1]", f"{error}")
    good = (pixels >= 0) & (pixels <= 1)  # false for NaN
    if not good.all():
        return _Problem("a pixel that cannot be", "numbers in [0, 1]", f"{pixels[~good][0]:g}")
    return np.rint(pixels * 255).astype(np.uint8).reshape(-1, PIXELS)
