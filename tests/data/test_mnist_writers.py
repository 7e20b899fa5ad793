# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""MNIST by writer: small files written by hand, sound and damaged, and the real ones."""

from __future__ import annotations

import dataclasses
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from custom.data import mnist_writers
from custom.data.download import Unavailable
from custom.data.mnist_writers import TEST, TRAIN, SplitFiles, open_mnist_writers
from custom.errors import BundleError
from tests.data.writer_files import idx_bytes, write_split

DATA_ROOT = Path(os.environ.get("FLARE_DATA_ROOT", "/nonexistent"))
# (grey, class, writer)
TRAIN_DIGITS = [(10, 1, 7), (11, 2, 3), (12, 3, 7), (13, 4, 3), (14, 5, 7), (15, 6, 5)]
TEST_DIGITS = [(20, 7, 2), (21, 8, 9), (22, 9, 2), (23, 0, 9)]


@pytest.fixture
def files(tmp_path) -> tuple[SplitFiles, SplitFiles]:
    return write_split(tmp_path, "train", TRAIN_DIGITS), write_split(tmp_path, "test", TEST_DIGITS)


def open_small(root: Path, files: tuple[SplitFiles, SplitFiles]):
    return open_mnist_writers(root, root / "cache", files)


def test_writers_by_split_and_number(tmp_path, files):
    """Training writers 3, 5, 7, then test writers 2 and 9; each with its digits in MNIST's order."""
    writers = open_small(tmp_path, files)
    assert writers.images[:, 0, 0, 0].tolist() == [11, 13, 15, 10, 12, 14, 20, 22, 21, 23]
    assert writers.labels.tolist() == [2, 4, 6, 1, 3, 5, 7, 9, 8, 0]
    assert writers.offsets.tolist() == [0, 2, 3, 6, 8, 10]
    assert writers.held_out.tolist() == [3, 4]
    assert writers.images.shape == (10, 28, 28, 1)
    assert not writers.embedded


def test_the_second_time_nothing_is_read(tmp_path, files, monkeypatch):
    first = open_small(tmp_path, files)
    monkeypatch.setattr(mnist_writers, "read_bytes", None)
    again = open_small(tmp_path, files)
    assert isinstance(again.images, np.memmap)
    assert np.array_equal(first.images, again.images)


def test_files_that_torchvision_has_unpacked(tmp_path, files):
    expected = open_small(tmp_path, files).images[:]
    for packed in (tmp_path / "MNIST" / "raw").glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert np.array_equal(open_small(tmp_path, files).images, expected)


@pytest.mark.parametrize("name", ["MNIST/raw/train-images.gz", "MNIST/raw/test-labels.gz", "qmnist/train-writers.gz"])
def test_a_changed_file_is_named(tmp_path, files, name):
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}: missing, truncated or corrupt, expected md5 .*; delete .*{name}"):
        open_small(tmp_path, files)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (idx_bytes(np.zeros((6, 28, 28), np.uint8))[:-1], "cannot reshape"),
        (b"", "starts with b''"),
        (idx_bytes(np.zeros((6, 28, 28), np.int32)), r"starts with b'\\x00\\x00\\x0c"),
        (idx_bytes(np.zeros((5, 28, 28), np.uint8)), r"\(5, 28, 28\)"),
        (idx_bytes(np.zeros((6, 27, 28), np.uint8)), r"\(6, 27, 28\)"),
    ],
    ids=["cut off", "empty", "integers", "too few", "small"],
)
def test_an_unpacked_file_that_is_not_what_it_should_be(tmp_path, files, content, got):
    (tmp_path / "MNIST/raw/train-images.gz").unlink()
    (tmp_path / "MNIST/raw/train-images").write_bytes(content)
    with pytest.raises(BundleError, match=rf"raw/train-images: missing, truncated or corrupt, .*got {got}"):
        open_small(tmp_path, files)


@pytest.mark.parametrize(
    "classes", [[1, 2, 3, 4, 5, 7], [1, 2, 3, 4, 5, 6, 7]], ids=["another class", "more than QMNIST has"]
)
def test_mnist_and_qmnist_disagree(tmp_path, files, classes):
    (tmp_path / "MNIST/raw/train-labels.gz").unlink()
    (tmp_path / "MNIST/raw/train-labels").write_bytes(idx_bytes(np.array(classes, np.uint8)))
    images = np.zeros((len(classes), 28, 28), np.uint8)
    (tmp_path / "MNIST/raw/train-images.gz").unlink()
    (tmp_path / "MNIST/raw/train-images").write_bytes(idx_bytes(images))
    with pytest.raises(BundleError, match=r"train-writers.gz: MNIST and QMNIST disagree about the classes"):
        open_small(tmp_path, files)


def test_missing_files_are_downloaded(tmp_path, files):
    """From an address on this disk."""
    expected = open_small(tmp_path, files).images[:]
    there = [[dataclasses.replace(f, url=(tmp_path / f.target).as_uri()) for f in vars(s).values()] for s in files]
    here = tmp_path / "elsewhere"
    writers = open_small(here, tuple(SplitFiles(*split) for split in there))
    assert np.array_equal(writers.images, expected)
    assert (here / "MNIST" / "raw" / "train-images.gz").is_file()
    assert not list(here.rglob("*.part"))


def test_no_network(tmp_path, files):
    (tmp_path / "qmnist" / "test-writers.gz").unlink()
    with pytest.raises(Unavailable, match=r"MNIST is not there and cannot be downloaded .* copy test-writers.gz to"):
        open_small(tmp_path, files)


def test_addresses_and_checksums_are_those_of_torchvision():
    from torchvision.datasets import MNIST, QMNIST

    ours = [TRAIN.images, TRAIN.labels, TEST.images, TEST.labels]
    assert [(Path(file.target).name, file.md5) for file in ours] == MNIST.resources
    assert all(file.url == MNIST.mirrors[0] + Path(file.target).name for file in ours)
    assert (TRAIN.writers.url, TRAIN.writers.md5) == QMNIST.resources["train"][1]
    assert (TEST.writers.url, TEST.writers.md5) == QMNIST.resources["test"][1]


@pytest.mark.skipif(
    not all((DATA_ROOT / folder).is_dir() for folder in ("MNIST", "qmnist")),
    reason="FLARE_DATA_ROOT holds no MNIST and qmnist",
)
def test_the_real_files(tmp_path):
    """539 writers in the training set and 297 others in the test set; MNIST's 5,421 fives; mean and deviation."""
    writers = open_mnist_writers(DATA_ROOT, tmp_path)
    assert len(writers) == 539 + 297
    assert writers.held_out.tolist() == list(range(539, 836))
    assert writers.sizes()[:539].sum() == 60_000
    assert writers.sizes().min() == 8
    assert np.bincount(writers.labels[:60_000]).tolist()[5] == 5421
    assert np.bincount(writers.labels[60_000:]).tolist()[5] == 892
    assert writers.images[:60_000].mean() / 255 == pytest.approx(writers.mean, abs=1e-4)
    assert writers.images[:60_000].std() / 255 == pytest.approx(writers.std, abs=1e-4)
