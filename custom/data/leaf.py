# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FEMNIST as LEAF makes it, in JSON by writer (Caldas et al. 2018, https://arxiv.org/abs/1812.01097).

`femnist/data/train/*.json` and `test/*.json`, also packed as `.json.gz`, hold `users`, `num_samples` and
`user_data[user]` with `x`, lists of 784 pixels in [0, 1] where paper is 1, and `y`. With `-t sample` LEAF divides each
writer's samples over the two folders; here they are put together again, as this software makes its own division. With
`-t user` the writers in `test` are others than those in `train`, and are held out of training.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from custom.data.download import Unavailable
from custom.data.leaf_shard import MIN_SAMPLES, PIXELS, SCRIPTS, SIDE, read_shard
from custom.data.remarks import left_out_line
from custom.data.writer_cache import open_converted, save
from custom.data.writers import Writers
from custom.errors import BundleError

FOLDER = "femnist"
SPLITS = ("train", "test")
MEAN, STD = 1.0, 0.31  # paper, which is most of an image, becomes 0 as it is in MNIST; LEAF's own 1 slows learning
COMMAND = "./preprocess.sh -s niid --sf 1.0 -k 0 -t sample"
TOO_FEW = f"writers with fewer than {MIN_SAMPLES} samples"
HIDDEN, OTHER, FOLDERS = "hidden files", "files that are not .json or .json.gz", "folders"

logger = logging.getLogger(__name__)

Shards = Mapping[str, Sequence[Path]]  # by split
Runs = list[tuple[int, NDArray[np.int64]]]  # of one writer: place of the first image among all as read, and labels


def open_leaf(root: Path, cache_dir: Path) -> Writers:
    """All writers with two samples or more, by name.

    Args:
        root: holds the folder `femnist`, or is such a folder itself, under any name.
        cache_dir: see `custom.data.writer_cache.open_converted`.

    Raises:
        Unavailable: there is no such folder.
        BundleError: there is one, and its files are not what they should be.
    """
    place = _find(root)
    left_out: Counter[str] = Counter()
    shards: dict[str, list[Path]] = {}
    for split in SPLITS:
        shards[split], others = find_shards(place / split)
        left_out.update(others)
    paths = [path for split in SPLITS for path in shards[split]]
    data = open_converted(cache_dir, FOLDER, paths, partial(convert, shards))
    name = "FEMNIST" if FOLDER in place.parts[-2:] else "handwriting in LEAF's layout"
    left_out.update({TOO_FEW: data.facts["skipped"]} if data.facts["skipped"] else {})
    if left_out:
        logger.warning("%s: left out: %s", name, left_out_line(left_out))
    training = data.facts.get("training_writers", 0)
    return Writers(
        name=name,
        embedded=False,
        num_classes=data.facts["num_classes"],
        images=data.images,
        labels=data.labels,
        offsets=data.offsets,
        mean=MEAN,
        std=STD,
        held_out=np.arange(training, len(data.offsets) - 1) if training else None,
        skipped=data.facts["skipped"],
        left_out=dict(left_out),
    )


def find_shards(folder: Path) -> tuple[list[Path], dict[str, int]]:
    """The JSON files of one folder, by name, and how much else is there, by kind.

    Raises:
        BundleError: there are none.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []  # and not `glob`, which hides a lack of rights
    paths = [path for path in entries if _kind(path) == ""]
    others = Counter(kind for path in entries if (kind := _kind(path)))
    if not paths:
        raise BundleError(
            "holds no .json and no .json.gz file",
            code="data-missing",
            key=str(folder),
            got=left_out_line(others) or None,
            remedy=f"make the data with LEAF's {COMMAND}",
        )
    return paths, dict(others)


def _kind(path: Path) -> str:
    """What an entry of a folder is; empty for LEAF's JSON."""
    if path.name.startswith("."):
        return HIDDEN  # such as `._all_data.json`, which macOS writes beside a file on a foreign disk
    if path.is_dir():
        return FOLDERS
    return "" if path.name.endswith((".json", ".json.gz")) else OTHER


def _find(root: Path) -> Path:
    """The folder that holds `train` and `test`."""
    if (root / FOLDER).exists():
        return root / FOLDER / "data"
    for place in (root / "data", root):
        if any(_kind(path) == "" for split in SPLITS for path in (place / split).glob("*.json*")):
            return place
    raise Unavailable(
        "FEMNIST is not there and cannot be downloaded, since LEAF's scripts make it",
        code="data-missing",
        key=str(root / FOLDER),
        remedy=f"run {COMMAND} in data/femnist of https://github.com/TalwalkarLab/leaf and copy data/femnist to "
        f"{root}, or point dataset_path or FLARE_DATA_ROOT at that folder, or the one that it lies in",
    )


def convert(shards: Shards, folder: Path) -> None:
    """Writes the arrays of `custom.data.writer_cache` to `folder`; holds the images of one shard at a time.

    Raises:
        BundleError: names the file, and the user.
    """
    staged = folder / "staged"  # the images in the order of the shards
    found = _stage(shards, staged)
    runs = {
        user: found["train"].get(user, []) + found["test"].get(user, []) for split in SPLITS for user in found[split]
    }
    kept = {user for user, writer in runs.items() if _size(writer) >= MIN_SAMPLES}
    if not kept:
        raise BundleError(
            "no writer has two samples",
            code="data-too-small",
            key=str(shards["train"][0].parent),
            got=f"{len(runs)} writers",
        )
    training, testing = (sorted(kept & found[split].keys()) for split in SPLITS)
    by_user = bool(training and testing) and set(training).isdisjoint(testing)
    if not by_user:
        _check_same_users(training, testing, shards)
    writers = [runs[user] for user in (training + testing if by_user else training)]
    labels = np.concatenate([part for writer in writers for _, part in writer])
    offsets = np.cumsum([0, *map(_size, writers)], dtype=np.int64)
    _write_images(folder / "images.npy", len(labels), _images(staged, writers))
    staged.unlink()
    num_classes = 10 if labels.max() < 10 else 62
    held_out = {"training_writers": len(training)} if by_user else {}
    save(folder, labels, offsets, num_classes=num_classes, skipped=len(runs) - len(kept), **held_out)


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


def _check_same_users(training: list[str], testing: list[str], shards: Shards) -> None:
    for split, users, other, others in (("train", training, "test", testing), ("test", testing, "train", training)):
        lonely = sorted(set(users) - set(others))
        if lonely:
            raise BundleError(
                f"users in {split} and not in {other}: {len(lonely)}",
                code="data-malformed",
                key=str(shards[other][0].parent),
                expected=", ".join(lonely[:3]),
                got="none of them" if len(lonely) <= 3 else "none of them, nor others",
                remedy=f"make the data with {SCRIPTS} and -t sample, which gives each user samples in both, or with "
                "-t user, which gives none samples in both",
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
