# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Writers made of any labelled images: label shards after McMahan et al. 2017, https://arxiv.org/abs/1602.05629.

The images are sorted by label and cut into equal shards, of which every writer is dealt a few at random, so that it
knows few classes. Which writer a site hosts is decided elsewhere: the dealing is the same for any number of sites.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from custom.data.cifar10 import Cifar10, find_folder, official_files
from custom.data.digits import SIDE, Digits, read_table
from custom.data.writers import Writers
from custom.errors import BundleError

SHARDS_EACH = 2
DIGIT_WRITERS = 100
CIFAR10_WRITERS = 500


def deal(labels: NDArray[np.int64], num_writers: int, shards_each: int, seed: int) -> NDArray[np.int64]:
    """Deals `shards_each` label shards to every writer.

    Args:
        labels: of shape (samples,), a multiple of `num_writers * shards_each`.
        num_writers: who get equally many samples.
        shards_each: of samples that are neighbours when sorted by label.
        seed: decides who gets which shards.

    Returns:
        The row numbers of each writer's samples, of shape (num_writers, samples of one writer).

    Raises:
        BundleError: the samples cannot be cut into equal shards.
    """
    num_shards = num_writers * shards_each
    if len(labels) == 0 or len(labels) % num_shards:
        raise BundleError(
            "the samples cannot be cut into equal shards",
            code="data-too-small",
            expected=f"a multiple of {num_shards}",
            got=len(labels),
        )
    shards = np.argsort(labels, kind="stable").reshape(num_shards, -1)
    return shards[np.random.default_rng(seed).permutation(num_shards)].reshape(num_writers, -1)


def deal_digits(seed: int) -> Writers:
    """The embedded 5,000 digits, 28 x 28 grey: 100 writers of 50 images."""
    table = read_table()
    rows = deal(table[:, -1].astype(np.int64), DIGIT_WRITERS, SHARDS_EACH, seed)
    mine = table[rows.ravel()]
    return Writers(
        name=f"{Digits.name}, dealt to {DIGIT_WRITERS} writers in label shards",
        embedded=True,
        num_classes=Digits.num_classes,
        images=mine[:, :-1].reshape(-1, SIDE, SIDE, 1),
        labels=mine[:, -1].astype(np.int64),
        offsets=_offsets(rows),
        mean=0.1313,
        std=0.3086,
    )


def deal_cifar10(root: Path, seed: int) -> Writers:
    """The training set of CIFAR-10, 32 x 32 in colour: 500 writers of 100 images.

    Args:
        root: holds, or is to hold, `cifar-10-batches-py`.
        seed: decides who gets which images.

    Raises:
        Unavailable: the files are not there and cannot be downloaded.
        BundleError: a file is damaged.
    """
    files = official_files()
    source = Cifar10(find_folder(root, files), files)
    labels = source.labels("train")
    rows = deal(labels, CIFAR10_WRITERS, SHARDS_EACH, seed)
    images = source.images("train", np.arange(len(labels))).permute(0, 2, 3, 1).numpy()
    return Writers(
        name=f"{Cifar10.name}, dealt to {CIFAR10_WRITERS} writers in label shards",
        embedded=False,
        num_classes=Cifar10.num_classes,
        images=images[rows.ravel()],
        labels=labels[rows.ravel()],
        offsets=_offsets(rows),
        mean=0.4734,
        std=0.2516,
    )


def _offsets(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.arange(len(rows) + 1) * rows.shape[1]
