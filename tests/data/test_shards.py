# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Label shards: by hand on a few labels, and on the digits and CIFAR-10."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from custom.data import shards
from custom.data.cifar10 import FOLDER
from custom.data.digits import read_table
from custom.data.shards import deal, deal_cifar10, deal_digits
from custom.errors import BundleError
from tests.data.batch_files import write_folder

DATA_ROOT = Path(os.environ.get("FLARE_DATA_ROOT", "/nonexistent"))


def test_deal_by_hand():
    """Sorted by label the rows are 1 4 | 6 0 | 3 5 | 2 7, so these are the shards, whoever gets them."""
    labels = np.array([1, 0, 2, 1, 0, 1, 0, 2])
    rows = deal(labels, num_writers=2, shards_each=2, seed=0)
    assert rows.shape == (2, 4)
    dealt = sorted(map(tuple, rows.reshape(4, 2).tolist()))
    assert dealt == [(1, 4), (2, 7), (3, 5), (6, 0)]


def test_the_seed_decides():
    labels = np.repeat(np.arange(10), 20)
    first, again, other = (deal(labels, 20, 2, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("samples", [0, 7, 10])
def test_samples_that_cannot_be_cut(samples):
    with pytest.raises(BundleError, match=f"expected a multiple of 4, got {samples}"):
        deal(np.zeros(samples, dtype=np.int64), 2, 2, 0)


def test_digits():
    """100 writers of 50 images: two shards of 25, so one or two classes. Each image once, with its label."""
    writers = deal_digits(3)
    assert writers.embedded
    assert len(writers) == 100
    assert set(writers.sizes()) == {50}
    labels = writers.labels.reshape(200, 25)
    assert (labels == labels[:, :1]).all()
    assert writers.images.shape == (5000, 28, 28, 1)
    rows = np.column_stack([writers.images.reshape(5000, -1), writers.labels.astype(np.uint8)])
    assert sorted(map(bytes, rows)) == sorted(map(bytes, read_table()))


def test_digits_are_normalised():
    writers = deal_digits(0)
    images = torch.cat([writers.load(writer, torch.device("cpu"))[0] for writer in range(100)])
    assert images.mean().item() == pytest.approx(0, abs=1e-3)
    assert images.std().item() == pytest.approx(1, abs=1e-3)


def test_cifar10_in_small(tmp_path, monkeypatch):
    """120 images to 6 writers; image i has the label i % 10 and its first byte is i."""
    files = write_folder(tmp_path)
    monkeypatch.setattr(shards, "official_files", lambda: files)
    monkeypatch.setattr(shards, "CIFAR10_WRITERS", 6)
    writers = deal_cifar10(tmp_path, 0)
    assert len(writers) == 6
    assert writers.images.shape == (120, 32, 32, 3)
    index = writers.images[:, 0, 0, 0].astype(int)
    assert sorted(index) == list(range(120))
    assert (index % 10 == writers.labels).all()
    assert all(len(set(writers.labels[20 * writer : 20 * writer + 20])) <= 4 for writer in range(6))


@pytest.mark.skipif(not (DATA_ROOT / FOLDER).is_dir(), reason=f"FLARE_DATA_ROOT holds no {FOLDER}")
def test_cifar10():
    """500 writers of 100 images in at most two classes; the constants of normalisation are right."""
    writers = deal_cifar10(DATA_ROOT, 0)
    assert set(writers.sizes()) == {100}
    assert len(writers) == 500
    labels = writers.labels.reshape(1000, 50)
    assert (labels == labels[:, :1]).all()
    assert np.bincount(writers.labels).tolist() == [5000] * 10
    assert writers.images.mean() / 255 == pytest.approx(writers.mean, abs=1e-4)
    assert writers.images.std() / 255 == pytest.approx(writers.std, abs=1e-4)
