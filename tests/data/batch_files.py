# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Writes small batch files byte for byte as CIFAR-10's authors did: Python 2's pickle protocol 2."""

from __future__ import annotations

import hashlib
import struct
import tarfile
from pathlib import Path

import numpy as np

from custom.data.cifar10 import FOLDER, BatchFiles

SAMPLES = 40  # in each file


def batch_bytes(pixels: np.ndarray, labels: list[int]) -> bytes:
    """One batch; `pixels` is uint8 of shape (samples, 3072). The memo, which nothing refers to, is left out."""
    raw = pixels.tobytes()
    number = b"".join(b"K" + bytes([label]) for label in labels)
    rows, columns = (b"M" + struct.pack("<H", size) for size in pixels.shape)
    return (
        b"\x80\x02}(U\x06labels](" + number + b"eU\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + rows + columns + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
        b"U\x09filenames](U\x05a.pngU\x05b.pngeu."
    )


def write_folder(root: Path, num_train: int = 3) -> BatchFiles:
    """A `cifar-10-batches-py` of a few files, and its checksums.

    Image i of the training set, counted over its files, starts with the byte i (mod 256) and has the label i % 10; the
    test image i starts with 255 - i and has the label i % 10.
    """
    folder = root / FOLDER
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    sums = {}
    for number, name in enumerate([*(f"data_batch_{n + 1}" for n in range(num_train)), "test_batch"]):
        index = np.arange(SAMPLES) + number * SAMPLES * (name != "test_batch")
        pixels = generator.integers(0, 256, (SAMPLES, 3072), dtype=np.uint8)
        pixels[:, 0] = 255 - index if name == "test_batch" else index % 256
        content = batch_bytes(pixels, [int(i) % 10 for i in index])
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    names = list(sums.items())
    return BatchFiles(train=tuple(names[:-1]), test=tuple(names[-1:]), url="", archive_md5="")


def write_archive(root: Path, url: str) -> BatchFiles:
    """`root`/cifar.tar.gz with such a folder inside, said to be found at `url`."""
    files = write_folder(root / "unpacked")
    archive = root / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / "unpacked" / FOLDER, FOLDER)
    return BatchFiles(files.train, files.test, url, hashlib.md5(archive.read_bytes()).hexdigest())
