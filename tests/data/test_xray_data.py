# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Chest X-rays: patients stay together, bad images are counted, and what is missing or damaged is named."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from custom.data.chest_xray import open_chest_xray
from custom.data.image_batches import ImageSiteData
from custom.data.pneumonia_mnist import open_pneumonia_mnist
from custom.data.synthetic_xrays import make_xrays
from custom.data.xray_data import XrayData
from custom.data.xrays import patient_of
from custom.errors import BundleError
from tests.data.xray_files import many_patients, write_folder, write_jpeg, write_npz

CPU = torch.device("cpu")
ROSTER = ["site-1", "site-2", "site-3"]
SPLITS = ("train", "validation", "test")
REAL = Path(os.environ.get("FLARE_DATA_ROOT", "/nonexistent"))


@pytest.fixture(autouse=True)
def root(monkeypatch, tmp_path) -> Path:
    """Nothing is there yet."""
    monkeypatch.setenv("FLARE_DATA_ROOT", str(tmp_path / "data"))
    return tmp_path / "data"


def component(root: Path, **arguments) -> XrayData:
    return XrayData(cache_dir=str(root / "cache"), **arguments)


def greys(data: ImageSiteData, split: str) -> list[int]:
    """The one grey of each image; JPEG keeps it to within 1."""
    images = torch.cat([images for images, _ in data.batches(split, 16, CPU)]) if data.size(split) else torch.empty(0)
    return [round(float(image.mean()) * 255 / 4 + 127.5) for image in images]


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("person123_bacteria_456", ("person123", True, True)),
        ("person123_virus_7", ("person123", True, True)),
        ("IM-0115-0001", ("im-0115", True, False)),
        ("IM-0115-0001-0002", ("im-0115", True, False)),
        ("NORMAL2-IM-0373-0001", ("normal2-im-0373", True, True)),
        ("scan7", ("scan7", False, False)),
    ],
)
def test_the_patient_is_in_the_name(stem, patient):
    assert patient_of(stem) == patient


def test_patients_are_grouped_and_images_in_order(root):
    """Greys by name: of training 10 to 14, of testing 15 and 16; person2's two images stand together."""
    train = {"NORMAL": ["IM-0002-0001", "IM-0001-0001"], "PNEUMONIA": ["person2_virus_9", "person1_virus_1"]}
    train["PNEUMONIA"].append("person2_bacteria_3")
    folder = write_folder(
        root, {"train": train, "test": {"NORMAL": ["IM-0009-0001"], "PNEUMONIA": ["person9_virus_1"]}}
    )
    data = open_chest_xray(folder, 32, root / "cache")
    assert data.images[:, 0, 0, 0].tolist() == pytest.approx([11, 10, 13, 14, 12, 15, 16], abs=1)
    assert data.labels.tolist() == [0, 0, 1, 1, 1, 0, 1]
    assert data.offsets.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert data.training_patients == 4
    assert data.rows(np.array([0, 3])).tolist() == [0, 3, 4]
    assert data.label_of(data.patients("test")).tolist() == [0, 1]
    assert data.images.shape == (7, 32, 32, 1)


def test_images_whose_names_tell_no_patient_are_patients_of_their_own(root):
    """Where a hospital numbers the files of each folder, the same number stands for another patient in each."""
    names = [f"image_{number:04}" for number in range(4)]
    folder = write_folder(root, {split: {"NORMAL": names, "PNEUMONIA": names} for split in ("train", "test")})
    write_jpeg(folder / "train" / "NORMAL" / "image_0000.png", 3)
    data = open_chest_xray(folder, 32, root / "cache")
    assert data.offsets.tolist() == list(range(18))
    assert data.training_patients == 9
    assert np.bincount(data.labels[data.rows(data.patients("train"))]).tolist() == [5, 4]
    assert data.left_out == {}
    assert any("17 of 17 images" in warning for warning in data.warnings)


def test_the_second_time_nothing_is_decoded(root):
    folder = write_folder(root, {"train": many_patients(2), "test": many_patients(1, first=7)})
    first = open_chest_xray(folder, 32, root / "cache")
    for path in folder.rglob("*.jpeg"):
        stamp = path.stat()
        path.write_bytes(b"x" * stamp.st_size)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert np.array_equal(open_chest_xray(folder, 32, root / "cache").images, first.images)


def test_a_test_patient_s_training_images_are_left_out(root):
    train = {"NORMAL": ["IM-0001-0001"], "PNEUMONIA": ["person1_virus_1", "person1_bacteria_2", "person2_virus_3"]}
    folder = write_folder(root, {"train": train, "test": {"NORMAL": [], "PNEUMONIA": ["person1_virus_4"]}})
    data = open_chest_xray(folder, 32, root / "cache")
    assert data.training_patients == 2
    assert data.left_out == {"training images of patients who are also in test": 2}


def test_no_patient_is_in_two_places(root):
    """Greys tell patients apart: patient n of each class has the greys 2 n and 2 n + 1 from 10 on."""
    folder = write_folder(root, {"train": many_patients(24), "test": many_patients(6, first=50)})
    assert folder.is_dir()
    shares = [component(root, validation_fraction=0.25).site(name, ROSTER, 0) for name in ROSTER]
    places: dict[int, set[tuple[str, str]]] = {}
    for name, share in zip(ROSTER, shares, strict=True):
        for split in SPLITS:
            for grey in greys(share, split):
                places.setdefault((grey - 10) // 2, set()).add((name, split))
    assert len(places) == 2 * (24 + 6)
    assert all(len(found) == 1 for found in places.values())
    assert [share.counts() for share in shares] == [{"train": 24, "validation": 8, "test": 8}] * 3


def test_corrupt_images_and_other_content(root, caplog):
    folder = write_folder(root, {"train": many_patients(3), "test": many_patients(1, first=7)})
    good = folder / "train" / "NORMAL" / "IM-0000-0001.jpeg"
    (folder / "train" / "NORMAL" / "IM-0090-0001.jpeg").write_bytes(good.read_bytes()[:-200])
    (folder / "train" / "NORMAL" / "IM-0091-0001.jpeg").write_bytes(b"")
    (folder / "train" / "NORMAL" / "IM-0092-0001.jpeg").write_text("<html>")
    (folder / "train" / "NORMAL" / "notes.txt").write_text("not an image")
    (folder / "train" / "NORMAL" / "._IM-0000-0001.jpeg").write_bytes(b"of macOS")
    write_jpeg(folder / "val" / "NORMAL" / "IM-0093-0001.jpeg", 99)
    with caplog.at_level(logging.WARNING):
        data = component(root, partition="none").site("a", [], 0)
    assert data.counts() == {"train": 10, "validation": 2, "test": 4}
    assert data.left_out() == {
        "images that cannot be read in train/NORMAL": 3,
        "files with .txt in train/NORMAL": 1,
        "files in val, which is neither train nor test": 1,
    }
    assert "IM-0092-0001.jpeg" in caplog.text  # in the site's own log; never in what is sent
    assert not any("IM-" in reason for reason in data.left_out())


def test_large_and_colour_images_are_cut_to_the_square_in_the_middle(root):
    """1,200 x 400 pixels, white but for a black square in the middle: what is left is black."""
    from PIL import Image

    folder = write_folder(root, {"train": {}, "test": many_patients(1)})
    image = Image.new("RGB", (1200, 400), "white")
    image.paste("black", (400, 0, 800, 400))
    image.save(folder / "train" / "NORMAL" / "wide.jpg", "JPEG")
    data = open_chest_xray(folder, 32, root / "cache")
    assert data.training_patients == 1
    assert data.images[0].mean() < 10


def test_nothing_there_says_what_to_fetch_and_where_to_put_it(root):
    with pytest.raises(BundleError, match=r"there are no chest X-rays.*kaggle.*pneumoniamnist.npz.*dataset=synthetic"):
        component(root).site("site-1", ROSTER, 0)


def test_a_class_without_a_folder_is_named(root):
    folder = write_folder(root, {"train": many_patients(2), "test": many_patients(1)})
    for path in (folder / "train" / "PNEUMONIA").iterdir():
        path.unlink()
    (folder / "train" / "PNEUMONIA").rmdir()
    with pytest.raises(
        BundleError, match=r"train: .*got the folders NORMAL and 0 files.*needs an empty folder"
    ) as error:
        component(root).site("site-1", ROSTER, 0)
    assert error.value.code == "data-missing"


def test_a_split_without_images_is_named(root):
    write_folder(root, {"train": many_patients(2), "test": {"NORMAL": []}})
    (root / "chest_xray" / "test" / "PNEUMONIA" / "scan.dcm").write_bytes(b"DICM")
    with pytest.raises(BundleError, match=r"got files with .dcm in test/PNEUMONIA: 1") as error:
        component(root).site("site-1", ROSTER, 0)
    assert error.value.code == "data-missing"


def test_a_site_of_one_class_is_told_so(root):
    write_folder(root, {"train": many_patients(6), "test": {"NORMAL": ["IM-0100-0001"]}})
    data = component(root, partition="none").site("a", [], 0)
    assert "all test images are NORMAL: no AUC" in data.data_warnings()
    assert data.size("test") == 1


def test_pneumonia_mnist(root):
    """Training and validation images are one training set; no patients are known."""
    write_npz(root / "pneumoniamnist" / "pneumoniamnist.npz")
    source = open_pneumonia_mnist(root / "pneumoniamnist" / "pneumoniamnist.npz", None)
    assert source.training_patients == 36
    assert source.images[30:36, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert source.labels[:4].tolist() == [0, 1, 1, 0]
    data = component(root).site("site-1", ROSTER[:1], 0)
    assert data.describe()["dataset"] == "PneumoniaMNIST"
    assert data.describe()["input_shape"] == [1, 28, 28]
    assert data.counts() == {"train": 32, "validation": 4, "test": 10}
    larger = component(root, image_size=40).site("site-1", ROSTER[:1], 0)
    assert larger.describe()["input_shape"] == [1, 40, 40]


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_file_that_is_not_pneumonia_mnist(root, damage):
    path = write_npz(root / "pneumoniamnist.npz")
    content = path.read_bytes()
    if damage == "other":
        np.savez(path, images=np.zeros(3))
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(BundleError, match=r"pneumoniamnist.npz: truncated or corrupt, .*; download it again from http"):
        component(root).site("site-1", ROSTER, 0)


def test_the_folder_comes_before_the_file_unless_one_is_named(root):
    write_folder(root, {"train": many_patients(12), "test": many_patients(4, first=50)})
    write_npz(root / "pneumoniamnist.npz")
    names = {
        d: component(root, dataset=d).site("a", ["a"], 0).describe()["dataset"] for d in ("auto", "pneumoniamnist")
    }
    assert names == {"auto": "chest X-rays (image files)", "pneumoniamnist": "PneumoniaMNIST"}


def test_sites_whose_images_differ_say_so(root, tmp_path):
    """A patient could otherwise be tested on at one site and trained on at another."""
    write_folder(root, {"train": many_patients(12), "test": many_patients(4, first=50)})
    before = component(root).site("a", ["a"], 0).describe()
    write_jpeg(root / "chest_xray" / "train" / "NORMAL" / "IM-0999-0001.jpeg", 200)
    assert component(root).site("a", ["a"], 0).describe()["digest"] != before["digest"]
    assert "digest" not in component(root, partition="none").site("a", ["a"], 0).describe()


def test_generated_images_are_the_same_everywhere_and_of_both_classes():
    first, again = make_xrays(32), make_xrays(32)
    assert first.embedded
    assert np.array_equal(first.images, again.images)
    assert first.digest() == again.digest()
    assert np.bincount(first.labels).min() > 100
    assert len(first.offsets) - 1 == 400 < len(first.images)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"dataset": "mnist"}, "dataset"),
        ({"dataset_path": ""}, "dataset_path"),
        ({"cache_dir": None}, "cache_dir"),
        ({"image_size": 8}, "image_size"),
        ({"image_size": 64.0}, "image_size"),
        ({"partition": "k_classes"}, "partition"),
        ({"alpha": 0}, "alpha"),
        ({"validation_fraction": 0}, "validation_fraction"),
        ({"augment": 1.5}, "augment"),
    ],
)
def test_a_bad_argument_is_named(arguments, key):
    with pytest.raises(BundleError, match=f"^{key}: expected .*, got .*; correct it in config_fed_client.json"):
        XrayData(**arguments).check()


@pytest.mark.skipif(not (REAL / "pneumoniamnist").is_dir(), reason="FLARE_DATA_ROOT holds no pneumoniamnist")
def test_the_real_file(monkeypatch):
    """MedMNIST's numbers: 4,708 + 524 images to train on, 624 to test on, of these 390 with pneumonia."""
    monkeypatch.setenv("FLARE_DATA_ROOT", str(REAL))
    data = XrayData(dataset="pneumoniamnist", partition="none").site("a", [], 0)
    assert data.counts() == {"train": 4709, "validation": 523, "test": 624}
    assert sum(int(labels.sum()) for _, labels in data.batches("test", 624, CPU)) == 390


@pytest.mark.skipif(not (REAL / "chest_xray").is_dir(), reason="FLARE_DATA_ROOT holds no chest_xray")
def test_the_real_jpegs(tmp_path):
    """580 images to train on and 200 to test on; no patient is in both."""
    data = open_chest_xray(REAL / "chest_xray", 64, tmp_path)
    assert len(data.images) == 780
    assert (data.left_out, data.warnings, data.notes) == ({}, [], [])
    assert np.bincount(data.labels).tolist() == [390, 390]
    assert 20 < data.images.std() < 100
