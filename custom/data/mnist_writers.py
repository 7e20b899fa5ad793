# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""MNIST by writer: LeCun et al. 1998, with the writers that Yadav and Bottou 2019 found out.

https://arxiv.org/abs/1905.10498. QMNIST's label files have a row for every digit of MNIST, with its class in column 0
and its writer in column 2; the test file goes on with 50,000 digits that MNIST has not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from custom.data.download import UNREADABLE, RemoteFile, check_md5, damaged, download, has_md5, read_bytes
from custom.data.writer_cache import open_converted, save
from custom.data.writers import Writers
from custom.errors import BundleError

SIDE = 28
LARGEST_LABEL = 9
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
QMNIST_URL = "https://raw.githubusercontent.com/facebookresearch/qmnist/master"
IMAGES, LABELS, ROWS = b"\0\0\x08\x03", b"\0\0\x08\x01", b"\0\0\x0c\x02"  # the start of each kind of file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitFiles:
    """The files of one official split, training or test."""

    images: RemoteFile
    labels: RemoteFile
    writers: RemoteFile


def _mnist(name: str, md5: str) -> RemoteFile:
    return RemoteFile("MNIST", f"MNIST/raw/{name}.gz", f"{MNIST_URL}/{name}.gz", md5)


def _qmnist(name: str, md5: str) -> RemoteFile:
    return RemoteFile("QMNIST", f"qmnist/{name}.gz", f"{QMNIST_URL}/{name}.gz", md5)


# Addresses and checksums as in torchvision, which takes a second to import.
TRAIN = SplitFiles(
    _mnist("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    _mnist("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432"),
    _qmnist("qmnist-train-labels-idx2-int", "0058f8dd561b90ffdd0f734c6a30e5e4"),
)
TEST = SplitFiles(
    _mnist("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3"),
    _mnist("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c"),
    _qmnist("qmnist-test-labels-idx2-int", "5b5b05890a5e13444e108efe57b788aa"),
)


def open_mnist_writers(root: Path, cache_dir: Path, splits: Sequence[SplitFiles] = (TRAIN, TEST)) -> Writers:
    """The 539 writers of MNIST's training set, then the 297 of its test set, each by number; the latter are held out.

    Args:
        root: holds, or is to hold, the folders `MNIST/raw` and `qmnist`.
        cache_dir: see `custom.data.writer_cache.open_converted`.
        splits: the training files, then the test files.

    Raises:
        Unavailable: a file is not there and cannot be downloaded.
        BundleError: a file is damaged, or MNIST and QMNIST disagree.
    """
    found = {file: find_file(root, file) for split in splits for file in (split.images, split.labels, split.writers)}
    data = open_converted(cache_dir, "mnist-writers", list(found.values()), partial(_convert, splits, found))
    return Writers(
        name="MNIST by writer",
        embedded=False,
        num_classes=10,
        images=data.images,
        labels=data.labels,
        offsets=data.offsets,
        mean=0.1307,
        std=0.3081,
        held_out=np.arange(data.facts["training_writers"], len(data.offsets) - 1),
    )


def find_file(root: Path, file: RemoteFile) -> Path:
    """The path of `file`, or of what torchvision has unpacked of it, or else it is downloaded.

    Raises:
        Unavailable: it is not there and cannot be downloaded.
    """
    target = Path(file.target)
    name = target.name.removesuffix(".gz")
    names = (name, name.replace("-idx", ".idx"), f"{name}/{name}")  # as published, and as 7-zip and Kaggle name them
    folders = (root / target.parent, root / str(target.parent).lower(), root / "QMNIST/raw", root, root / "raw")
    there = [folder / found for folder in folders for found in names]
    packed = next((path for path in (Path(f"{path}.gz") for path in there) if path.is_file()), None)
    unpacked = next((path for path in there if path.is_file()), None)
    if packed and unpacked and not has_md5(packed, file.md5):
        logger.warning("%s is damaged; %s is used", packed, unpacked)
        return unpacked
    return packed or unpacked or download(root, file)


def _convert(splits: Sequence[SplitFiles], found: dict[RemoteFile, Path], folder: Path) -> None:
    """Writes the arrays of `custom.data.writer_cache` to `folder`, a writer's samples in MNIST's order."""
    images, labels, sizes = [], [], []
    for split in splits:
        pixels, classes, writers = _read_split(split, found)
        order = np.argsort(writers, kind="stable")
        images.append(pixels[order])
        labels.append(classes[order])
        sizes.append(np.unique(writers, return_counts=True)[1])
    np.save(folder / "images.npy", np.concatenate(images)[..., None])
    offsets = np.cumsum(np.concatenate([[0], *sizes]))
    save(folder, np.concatenate(labels), offsets, training_writers=len(sizes[0]))


def _read_split(
    split: SplitFiles, found: dict[RemoteFile, Path]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Images of shape (samples, 28, 28), and the class and the writer of each, of shape (samples,)."""
    images = read_idx(split.images, found[split.images], IMAGES).astype(np.uint8, copy=False)
    labels = read_labels(split.labels, found[split.labels])
    rows = read_idx(split.writers, found[split.writers], ROWS)[: len(labels)].astype(np.int64)
    if images.shape != (len(labels), SIDE, SIDE):
        path = found[split.images]
        raise damaged(path, f"{len(labels)} images of {SIDE} x {SIDE} pixels", f"{images.shape}", path)
    if rows.shape[1] < 3 or not np.array_equal(rows[:, 0], labels):
        raise BundleError(
            "MNIST and QMNIST disagree about the classes of the digits",
            code="data-damaged",
            key=str(found[split.writers]),
            expected=f"the {len(labels)} labels of {found[split.labels].name} in column 0",
            got=f"{rows.shape}" if len(rows) != len(labels) else "others",
            remedy="delete both files to have them downloaded again",
        )
    return images, labels, rows[:, 2]


def read_labels(file: RemoteFile, path: Path) -> NDArray[np.int64]:
    """The labels of one file, of shape (samples,), each 0 to 9.

    Raises:
        BundleError: as `read_idx`; or one is larger.
    """
    labels = read_idx(file, path, LABELS).astype(np.int64)
    odd = np.flatnonzero(labels > LARGEST_LABEL)
    if len(odd):
        raise BundleError(
            code="data-malformed",
            key=f"{path} row {odd[0]}",
            expected=f"labels from 0 to {LARGEST_LABEL}",
            got=f"{labels[odd[0]]}, and {len(odd)} such in all",
            remedy=f"replace it by {file.url}",
        )
    return labels


def read_idx(file: RemoteFile, path: Path, start: bytes) -> NDArray[Any]:
    """The array in an IDX file (http://yann.lecun.com/exdb/mnist): element type and rank, dimensions, elements.

    Raises:
        BundleError: it does not begin with `start`, is cut off, or a published file has another checksum.
    """
    if path.suffix == ".gz":  # the published file; of an unpacked one no checksum is known
        check_md5(path, file.md5, path)
    try:
        content = read_bytes(path)
        if content[:4] != start:
            raise ValueError(f"starts with {content[:4]!r}")
        rank = start[3]
        shape = np.frombuffer(content, ">i4", rank, 4)
        return np.frombuffer(content, np.uint8 if start[2] == 8 else ">i4", offset=4 + 4 * rank).reshape(shape)
    except PermissionError:
        raise
    except (*UNREADABLE, ValueError) as error:
        raise damaged(path, f"an IDX file that starts with {start!r}", f"{error}", path) from error
