# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Writes small files by writer: LEAF's JSON, and the IDX files of MNIST and QMNIST. Images are of one grey each."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from custom.data.download import RemoteFile
from custom.data.mnist_writers import SplitFiles

Samples = list[tuple[int, int]]  # grey from 0 to 255, and label
QMNIST_EXTRA = 2  # rows that QMNIST's test file has beyond MNIST's


def leaf_content(users: dict[str, Samples]) -> dict[str, Any]:
    """What LEAF writes to one file."""
    return {
        "users": list(users),
        "num_samples": [len(samples) for samples in users.values()],
        "user_data": {
            user: {"x": [[grey / 255] * 784 for grey, _ in samples], "y": [label for _, label in samples]}
            for user, samples in users.items()
        },
    }


def write_json(path: Path, content: Any) -> Path:
    """Packed if the name ends in `.gz`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return path


def write_leaf(
    root: Path, train: list[dict[str, Samples]], test: list[dict[str, Samples]], suffix: str = ".json"
) -> Path:
    """`root`/femnist with a file for each dictionary; returns `root`."""
    for split, shards in (("train", train), ("test", test)):
        for number, users in enumerate(shards):
            write_json(root / "femnist" / "data" / split / f"all_data_{number}{suffix}", leaf_content(users))
    return root


def write_many_writers(root: Path, count: int) -> Path:
    """LEAF writers w000, w001, ... with two samples in train and one in test; all of writer i have the grey i."""
    users = {f"w{number:03d}": (number, number % 10) for number in range(count)}
    return write_leaf(root, [{user: [one, one] for user, one in users.items()}], [{u: [s] for u, s in users.items()}])


def idx_bytes(array: np.ndarray) -> bytes:
    """As http://yann.lecun.com/exdb/mnist describes it; uint8, or else 32-bit integers."""
    code, dtype = (8, np.uint8) if array.dtype == np.uint8 else (12, ">i4")
    header = struct.pack(f">BBBB{array.ndim}i", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(dtype).tobytes()


def write_split(root: Path, name: str, digits: list[tuple[int, int, int]]) -> SplitFiles:
    """MNIST's and QMNIST's files for (grey, class, writer) of each digit, packed, with their checksums."""
    greys, classes, writers = (np.array(column) for column in zip(*digits, strict=True))
    rows = np.full((len(digits) + QMNIST_EXTRA * (name == "test"), 8), 9, dtype=np.int32)
    rows[: len(digits), 0], rows[: len(digits), 2] = classes, writers
    return SplitFiles(
        _write(root, f"MNIST/raw/{name}-images.gz", np.full((len(digits), 28, 28), greys[:, None, None], np.uint8)),
        _write(root, f"MNIST/raw/{name}-labels.gz", classes.astype(np.uint8)),
        _write(root, f"qmnist/{name}-writers.gz", rows),
    )


def _write(root: Path, target: str, array: np.ndarray) -> RemoteFile:
    path = root / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(idx_bytes(array), mtime=0))
    return RemoteFile("MNIST", target, "http://127.0.0.1:9/nothing", hashlib.md5(path.read_bytes()).hexdigest())
