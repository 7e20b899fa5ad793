# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""LEAF's layout: small folders written by hand, everything that can be wrong with one, and the real digits."""

from __future__ import annotations

import gzip
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from custom.data import leaf
from custom.data.download import Unavailable
from custom.data.leaf import open_leaf
from custom.errors import BundleError
from tests.data.writer_files import leaf_content, write_json, write_leaf

DATA_ROOT = Path(os.environ.get("FLARE_DATA_ROOT", "/nonexistent"))
TRAIN = [{"carol": [(30, 3)], "alice": [(10, 1), (11, 9)]}, {"bob": [(20, 2), (255, 0)]}]
TEST = [{"bob": [(21, 4)], "alice": [(12, 5)], "carol": [(31, 6)]}]


def open_small(root: Path):
    return open_leaf(root, root / "cache")


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_writers_by_name_with_the_samples_of_both_folders(tmp_path, suffix):
    """Alice 10, 11 and 12, Bob 20, 255 and 21, Carol 30 and 31, though files and folders have other orders."""
    writers = open_small(write_leaf(tmp_path, TRAIN, TEST, suffix))
    assert writers.images.shape == (8, 28, 28, 1)
    assert writers.images.dtype == np.uint8
    assert (writers.images == writers.images[:, :1, :1]).all()
    assert writers.images[:, 0, 0, 0].tolist() == [10, 11, 12, 20, 255, 21, 30, 31]
    assert writers.labels.tolist() == [1, 9, 5, 2, 0, 4, 3, 6]
    assert writers.offsets.tolist() == [0, 3, 6, 8]
    assert writers.held_out is None
    assert writers.num_classes == 10
    assert writers.skipped == 0


def test_pixels_lie_row_by_row(tmp_path):
    """The number at place 3 * 28 + 5 is row 3, column 5."""
    content = leaf_content({"alice": [(255, 0)]})
    content["user_data"]["alice"]["x"][0][3 * 28 + 5] = 0.4
    write_json(tmp_path / "femnist/data/train/a.json", content)
    write_json(tmp_path / "femnist/data/test/a.json", leaf_content({"alice": [(255, 0)]}))
    image = open_small(tmp_path).images[0, :, :, 0]
    assert np.argwhere(image != 255).tolist() == [[3, 5]]
    assert image[3, 5] == 102


def test_a_letter_makes_it_62_classes(tmp_path):
    writers = open_small(write_leaf(tmp_path, [{"alice": [(1, 61)]}], [{"alice": [(2, 0)]}]))
    assert writers.num_classes == 62


def test_writers_with_too_few_samples_are_left_out_with_one_warning(tmp_path, caplog):
    train = [{"alice": [(1, 1)], "bob": [(2, 2)], "carol": []}]
    root = write_leaf(tmp_path, train, [{"alice": [], "bob": [(3, 3)], "carol": []}])
    with caplog.at_level(logging.WARNING):
        writers = open_small(root)
    assert writers.images[:, 0, 0, 0].tolist() == [2, 3]
    assert writers.skipped == 2
    assert writers.left_out == {"writers with fewer than 2 samples": 2}
    assert [record.message for record in caplog.records] == ["FEMNIST: left out: writers with fewer than 2 samples: 2"]


@pytest.mark.parametrize("entry", [{}, {"x": [], "y": []}, {"x": [[0.5] * 784], "y": [3]}])
def test_users_that_leaf_of_before_2020_left_in_user_data_alone(tmp_path, entry):
    """In both files; it is one writer."""
    root = write_leaf(tmp_path, TRAIN, TEST)
    for split in ("train", "test"):
        path = root / f"femnist/data/{split}/all_data_0.json"
        content = json.loads(path.read_text())
        content["user_data"]["dave"] = entry if split == "train" else {"x": [], "y": []}
        path.write_text(json.dumps(content))
    writers = open_small(root)
    assert len(writers) == 3
    assert writers.left_out == {"writers with fewer than 2 samples": 1}


def test_a_user_with_two_samples_that_is_not_listed(tmp_path):
    root = write_leaf(tmp_path, TRAIN, TEST)
    path = root / "femnist/data/train/all_data_0.json"
    content = json.loads(path.read_text())
    content["user_data"]["dave"] = content["user_data"]["alice"]
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="dave") as caught:
        open_small(root)
    assert (caught.value.code, caught.value.key) == ("data-malformed", str(path))


def test_a_user_with_one_sample_in_one_folder_alone(tmp_path):
    """LEAF keeps such users with -k 0."""
    writers = open_small(write_leaf(tmp_path, [*TRAIN, {"dave": [(1, 1)]}], TEST))
    assert (len(writers), writers.skipped) == (3, 1)


def test_other_files_are_counted(tmp_path):
    root = write_leaf(tmp_path, TRAIN, TEST)
    for split in ("train", "test"):
        (root / f"femnist/data/{split}/._all_data_0.json").write_bytes(b"\0\5\26\7")
    (root / "femnist/data/train/old.json").mkdir()
    (root / "femnist/data/test/notes.txt").write_text("")
    writers = open_small(root)
    assert len(writers) == 3
    assert writers.left_out == {"hidden files": 2, "folders": 1, "files that are not .json or .json.gz": 1}


def test_other_writers_in_the_test_folder_are_held_out(tmp_path):
    """As LEAF's -t user divides them; Frank has one sample, which is too few."""
    test = [{"erin": [(60, 4), (61, 4)], "dave": [(50, 1), (51, 2), (52, 3)], "frank": [(70, 1)]}]
    writers = open_small(write_leaf(tmp_path, [{"carol": [(30, 3), (31, 3)], "alice": [(10, 1), (11, 9)]}], test))
    assert writers.images[:, 0, 0, 0].tolist() == [10, 11, 30, 31, 50, 51, 52, 60, 61]
    assert writers.held_out.tolist() == [2, 3]
    assert writers.skipped == 1


@pytest.mark.parametrize("place", ["mine", "mine/data"])
def test_the_folder_itself_under_any_name(tmp_path, place):
    root = write_leaf(tmp_path, TRAIN, TEST)
    expected = open_small(root)
    (root / "femnist").rename(root / "mine")
    found = open_leaf(root / place, root / "cache")
    assert found.digest() == expected.digest()
    assert (expected.name, found.name) == ("FEMNIST", "handwriting in LEAF's layout")


def test_a_folder_with_train_and_test_of_something_else(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "NORMAL").mkdir(parents=True)
        (tmp_path / split / "image.png").write_bytes(b"")
    with pytest.raises(Unavailable):
        open_small(tmp_path)


def test_no_writer_is_left(tmp_path):
    with pytest.raises(BundleError, match="data/train: no writer has two samples, got 1 writers"):
        open_small(write_leaf(tmp_path, [{"alice": [(1, 1)]}], [{"alice": []}]))


def test_files_are_converted_once_and_again_when_they_change(tmp_path, monkeypatch):
    root = write_leaf(tmp_path, TRAIN, TEST)
    parsed = []
    read_shard = leaf.read_shard
    monkeypatch.setattr(leaf, "read_shard", lambda path: parsed.append(path.name) or read_shard(path))
    first, again = open_small(root), open_small(root)
    assert parsed == ["all_data_0.json", "all_data_1.json", "all_data_0.json"]
    assert isinstance(again.images, np.memmap)
    assert np.array_equal(first.images, again.images)
    write_json(root / "femnist/data/test/all_data_0.json", leaf_content({**TEST[0], "bob": [(99, 4)]}))
    assert 99 in open_small(root).images[:, 0, 0, 0]
    assert len(parsed) == 6


def edited(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes what the first training file says."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return damage


def of_alice(key: str, index: int, value: object) -> Callable[[Path], None]:
    return edited(lambda content: content["user_data"]["alice"][key].__setitem__(index, value))


def pixel(value: object) -> Callable[[Path], None]:
    return edited(lambda content: content["user_data"]["alice"]["x"][1].__setitem__(700, value))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: os.truncate(path, path.stat().st_size // 2), "0.json: cut off or damaged, expected JSON, got "),
        (lambda path: path.write_bytes(b"\xff\xfe{}"), "0.json: cut off or damaged, expected JSON, got 'utf-8' codec"),
        (lambda path: path.write_text("[" * 100_000), "0.json: cut off or damaged"),
        (lambda path: path.write_text('{"a": 1, "a": 2}'), "0.json: cut off or damaged, .* got a key is there twice"),
        (lambda path: path.write_text("[]"), "0.json: not LEAF's layout, .* got the keys none; make"),
        (edited(lambda c: c.pop("users")), "0.json: not LEAF's layout, .* got the keys num_samples, user_data; make"),
        (edited(lambda c: c["users"].append("dave")), "0.json: num_samples disagrees with users, .* 3 numbers, got 2"),
        (edited(lambda c: c["user_data"].pop("carol")), "0.json: users disagrees .* got carol"),
        (edited(lambda c: c.update(users=["carol", "carol"])), "0.json: users disagrees .* got alice"),
        (edited(lambda c: c["num_samples"].__setitem__(1, 3)), "0.json alice: num_samples .* 3 samples, got 2 images"),
        (edited(lambda c: c["user_data"]["alice"].pop("y")), "0.json alice: not LEAF's layout, expected lists x and y"),
        (edited(lambda c: c["user_data"]["alice"]["y"].pop()), "0.json alice: x and y disagree, .* 2 labels, .* got 1"),
        (of_alice("x", 1, [0.5] * 783), "0.json alice: an image of another size, expected lists of 784 .* got 783"),
        (of_alice("x", 1, 0.5), "0.json alice: an image of another size, .* got float"),
        (pixel(float("nan")), r"0.json alice: a pixel that cannot be, expected numbers in \[0, 1\], got nan"),
        (pixel(float("inf")), "0.json alice: a pixel that cannot be, .* got inf"),
        (pixel(1.01), "0.json alice: a pixel that cannot be, .* got 1.01"),
        (pixel(-0.01), "0.json alice: a pixel that cannot be, .* got -0.01"),
        (pixel(10**400), "0.json alice: a pixel that is not a number"),
        (pixel([0.5]), "0.json alice: a pixel that is not a number"),
        (of_alice("y", 0, 62), "0.json alice: a label that cannot be, expected integers from 0 to 61, got 62"),
        (of_alice("y", 0, -1), "0.json alice: a label that cannot be, .* got -1"),
        (of_alice("y", 0, 1.5), "0.json alice: a label that cannot be, .* got 1.5"),
        (of_alice("y", 0, "a"), "0.json alice: a label that cannot be, .* got 'a'"),
    ],
)
def test_what_is_wrong_is_said_and_where(tmp_path, damage, message):
    root = write_leaf(tmp_path, TRAIN, TEST)
    damage(root / "femnist/data/train/all_data_0.json")
    with pytest.raises(BundleError, match=rf"^{root}/femnist/data/train/all_data_{message}"):
        open_small(root)
    assert [path.suffix for path in (root / "cache").iterdir()] == [".lock"]


def test_a_packed_file_cut_in_half(tmp_path):
    root = write_leaf(tmp_path, TRAIN, TEST, ".json.gz")
    path = root / "femnist/data/test/all_data_0.json.gz"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(BundleError, match=r"all_data_0.json.gz: cut off or damaged, .* Compressed file ended"):
        open_small(root)


def test_a_packed_file_with_a_changed_byte(tmp_path):
    root = write_leaf(tmp_path, TRAIN, TEST, ".json.gz")
    path = root / "femnist/data/test/all_data_0.json.gz"
    text = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(text)[:-8] + gzip.compress(text + b" ")[-8:])  # with the checksum of another text
    with pytest.raises(BundleError, match=r"all_data_0.json.gz: cut off or damaged, .* CRC check failed"):
        open_small(root)


def test_a_user_in_two_files_of_a_folder(tmp_path):
    root = write_leaf(tmp_path, [*TRAIN, {"bob": [(1, 1)]}], TEST)
    with pytest.raises(
        BundleError, match=r"train/all_data_2.json bob: a user is in two .* same user in all_data_1.json"
    ):
        open_small(root)


@pytest.mark.parametrize("other", ["train", "test"])
def test_folders_with_some_of_the_same_users(tmp_path, other):
    """Alice has her two samples in one folder; Bob has some in both, so it is not a division by user."""
    both, one = [{"bob": [(1, 1)]}, {"alice": [(10, 1), (11, 9)]}], [{"bob": [(2, 2)]}]
    train, test = (both, one) if other == "test" else (one, both)
    with pytest.raises(BundleError, match="alice") as caught:
        open_small(write_leaf(tmp_path, train, test))
    assert (caught.value.code, caught.value.key) == ("data-malformed", str(tmp_path / "femnist/data" / other))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_without_files(tmp_path, split):
    root = write_leaf(tmp_path, TRAIN if split == "test" else [], TEST if split == "train" else [])
    with pytest.raises(
        BundleError, match=rf"femnist/data/{split}: holds no .json and no .json.gz file; make"
    ) as caught:
        open_small(root)
    assert not isinstance(caught.value, Unavailable)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(
        Unavailable, match=r"femnist: FEMNIST is not there and .* LEAF's scripts make it; run ./preprocess.sh"
    ):
        open_small(tmp_path)


def test_a_damaged_cache(tmp_path):
    root = write_leaf(tmp_path, TRAIN, TEST)
    open_small(root)
    (images,) = (root / "cache").glob("*/images.npy")
    os.truncate(images, 1000)
    with pytest.raises(BundleError, match=r"cache/femnist-\w+: a damaged file in the cache, .* delete .* made again"):
        open_small(root)


def test_a_cache_that_cannot_be_written(tmp_path):
    root = write_leaf(tmp_path, TRAIN, TEST)
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(BundleError, match=r"femnist-\w+: cannot be written, got .* set FLARE_CACHE_DIR at this site"):
        open_small(root)


@pytest.mark.skipif(not (DATA_ROOT / "femnist").is_dir(), reason="FLARE_DATA_ROOT holds no femnist")
def test_the_real_files(tmp_path):
    """200 writers with 20,096 samples in train and 2,235 in test; the first writer's against LEAF's own numbers."""
    writers = open_leaf(DATA_ROOT, tmp_path)
    assert len(writers) == 200
    assert len(writers.images) == len(writers.labels) == 22_331
    assert writers.num_classes == 10
    assert writers.skipped == 0
    (path,) = (DATA_ROOT / "femnist/data/test").glob("*.json.gz")
    test = json.loads(gzip.decompress(path.read_bytes()))
    user = min(test["users"])
    last = writers.images[: writers.offsets[1]][-len(test["user_data"][user]["y"]) :]
    assert np.abs(last.reshape(-1, 784) / 255 - np.array(test["user_data"][user]["x"])).max() < 1e-4
