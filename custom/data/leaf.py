# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FEMNIST as LEAF makes it, in JSON by writer (Caldas et al. 2018, https://arxiv.org/abs/1812.01097).

`femnist/data/train/*.json` and `test/*.json`, also packed as `.json.gz`, hold `users`, `num_samples` and
`user_data[user]` with `x`, lists of 784 pixels in [0, 1] where paper is 1, and `y`. LEAF divides each writer's samples
over the two folders; here they are put together again, as this software makes its own division.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from custom.data.download import Unavailable
from custom.data.leaf_shard import PIXELS, SIDE, read_shard
from custom.data.writer_cache import open_converted, save
from custom.data.writers import Writers
from custom.errors import BundleError

FOLDER = "femnist"
SPLITS = ("train", "test")
MEAN, STD = 1.0, 0.31  # paper, which is most of an image, becomes 0 as it is in MNIST; LEAF's own 1 slows learning
MIN_SAMPLES = 2  # one to personalise with, one to score on
COMMAND = "./preprocess.sh -s niid --sf 1.0 -k 0 -t sample"

logger = logging.getLogger(__name__)

Shards = Mapping[str, Sequence[Path]]  # by split
Runs = list[tuple[int, NDArray[np.int64]]]  # of one writer: place of the first image among all as read, and labels


def open_leaf(root: Path, cache_dir: Path) -> Writers:
    """All writers with two samples or more, by name.

    Args:
        root: holds the folder `femnist`.
        cache_dir: see `custom.data.writer_cache.open_converted`.

    Raises:
        Unavailable: there is no such folder.
        BundleError: there is one, and its files are not what they should be.
    """
    if not (root / FOLDER).exists():
        raise Unavailable(
            "FEMNIST is not there and cannot be downloaded, since LEAF's scripts make it",
            code="data-missing",
            key=str(root / FOLDER),
            remedy=f"run {COMMAND} in data/femnist of https://github.com/TalwalkarLab/leaf and copy data/femnist to "
            f"{root}, or point dataset_path or FLARE_DATA_ROOT at the folder that {FOLDER} lies in",
        )
    shards = {split: find_shards(root / FOLDER / "data" / split) for split in SPLITS}
    paths = [path for split in SPLITS for path in shards[split]]
    data = open_converted(cache_dir, FOLDER, paths, partial(convert, shards))
    if skipped := data.facts["skipped"]:
        logger.warning("FEMNIST: left out %d writers with fewer than %d samples", skipped, MIN_SAMPLES)
    return Writers(
        name="FEMNIST",
        embedded=False,
        num_classes=data.facts["num_classes"],
        images=data.images,
        labels=data.labels,
        offsets=data.offsets,
        mean=MEAN,
        std=STD,
        skipped=skipped,
    )


def find_shards(folder: Path) -> list[Path]:
    """The JSON files of one folder, by name.

    Raises:
        BundleError: there are none.
    """
    paths = sorted(path for path in folder.glob("*") if path.name.endswith((".json", ".json.gz")))
    if not paths:
        raise BundleError(
            "holds no .json and no .json.gz file",
            code="data-missing",
            key=str(folder),
            remedy=f"make the data with LEAF's {COMMAND}",
        )
    return paths


def convert(shards: Shards, folder: Path) -> None:
    """Writes the arrays of `custom.data.writer_cache` to `folder`; holds the images of one shard at a time.

    Raises:
        BundleError: names the file, and the user.
    """
    staged = folder / "staged"  # the images in the order of the shards
    found = _stage(shards, staged)
    _check_same_users(found, shards)
    runs = {user: found["train"][user] + found["test"][user] for user in sorted(found["train"])}
    kept = [writer for writer in runs.values() if _size(writer) >= MIN_SAMPLES]
    if not kept:
        raise BundleError(
            "no writer has two samples",
            code="data-too-small",
            key=str(shards["train"][0].parent),
            got=f"{len(runs)} writers",
        )
    labels = np.concatenate([part for writer in kept for _, part in writer])
    offsets = np.cumsum([0, *map(_size, kept)], dtype=np.int64)
    _write_images(folder / "images.npy", len(labels), _images(staged, kept))
    staged.unlink()
    num_classes = 10 if labels.max() < 10 else 62
    save(folder, labels, offsets, num_classes=num_classes, skipped=len(runs) - len(kept))


def _stage(shards: Shards, staged: Path) -> dict[str, dict[str, Runs]]:
    """Appends all images to a file; returns where they are, by split and user."""
    found: dict[str, dict[str, Runs]] = {split: {} for split in shards}
    first = 0
    with staged.open("wb") as file:
        for split, paths in shards.items():
            seen: dict[str, Path] = {}
            for path in paths:
                for user, images, labels in read_shard(path):
                    if user in seen:
                        raise BundleError(
                            "a user is in two files of one folder",
                            code="data-malformed",
                            key=f"{path} {user}",
                            got=f"the same user in {seen[user].name}",
                            remedy="delete the files of an earlier run of LEAF's preprocess.sh",
                        )
                    seen[user] = path
                    file.write(images.tobytes())
                    found[split][user] = [(first, labels)]
                    first += len(labels)
    return found


def _check_same_users(found: dict[str, dict[str, Runs]], shards: Shards) -> None:
    for split, other in (("train", "test"), ("test", "train")):
        lonely = sorted(found[split].keys() - found[other].keys())
        if lonely:
            raise BundleError(
                f"{len(lonely)} users are in {split} and not in {other}",
                code="data-malformed",
                key=str(shards[other][0].parent),
                expected=", ".join(lonely[:3]),
                got="none of them" if len(lonely) <= 3 else "none of them, nor others",
                remedy="make the data with LEAF's -t sample, which gives each user samples in both",
            )


def _size(runs: Runs) -> int:
    return sum(len(labels) for _, labels in runs)


def _images(staged: Path, writers: list[Runs]) -> Iterator[bytes]:
    """The images of one writer after the other."""
    with staged.open("rb") as file:
        for first, labels in (run for writer in writers for run in writer):
            file.seek(first * PIXELS)
            yield file.read(len(labels) * PIXELS)


def _write_images(path: Path, count: int, parts: Iterator[bytes]) -> None:
    """An .npy file written bit by bit: mapped into memory instead, it would count as memory in use."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, SIDE, 1)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part)
