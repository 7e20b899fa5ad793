# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Folders of X-rays as hospitals have them: every file is used, or counted by reason."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from custom.data.chest_xray import open_chest_xray
from custom.data.format_by_class import warnings_of
from custom.data.xray_files import find_folder, list_files
from custom.data.xrays import CLASSES, Xrays
from custom.errors import BundleError

EACH = 6  # images a class and split
RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
Name = Callable[[str, str, int], str]


def as_kaggle(split: str, of_class: str, number: int) -> str:
    first = number + EACH * (split == "test")
    stem = f"IM-{first:04}-0001" if of_class == "NORMAL" else f"person{first}_virus_1"
    return f"{split}/{of_class}/{stem}.png"


def write(folder: Path, name: Name = as_kaggle, bits: Callable[[str, str, int], int] = lambda *_: 8) -> Path:
    """A horizontal ramp for each image, of so many bits."""
    for split in ("train", "test"):
        for of_class in CLASSES:
            (folder / split / of_class).mkdir(parents=True, exist_ok=True)
            for number in range(EACH):
                path = folder / name(split, of_class, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                depth = bits(split, of_class, number)
                wide = np.rint(RAMP * ((2**depth - 1) / 255)).astype(np.uint8 if depth == 8 else np.uint16)
                wide[0, 0] = 2**depth - 1
                Image.fromarray(wide).save(path, "PNG")
    return folder


def read(folder: Path) -> Xrays:
    return open_chest_xray(folder, 32, folder.parent / "cache")


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_site_of_any_bit_depth_trains_on_the_same_pixels(tmp_path: Path, bits: int) -> None:
    data = read(write(tmp_path / "x", bits=lambda *_: bits))
    assert all(np.array_equal(image[1:, :, 0], RAMP[1:]) for image in data.images)
    assert data.warnings == []
    assert len(data.notes) == (bits > 8)
    assert all(f"from {bits} bits to 8" in note for note in data.notes)


def test_one_rule_for_the_whole_site(tmp_path: Path) -> None:
    """The depth is that of the brightest image, in whichever split or class: 12 bits beside 10 are scaled as 12."""
    data = read(write(tmp_path / "x", bits=lambda split, of_class, number: 12 if number < 4 else 10))
    means = sorted({round(float(image[1:].mean())) for image in data.images})
    assert means == [round(124 * 1023 / 4095), 124]  # 124 is the mean of 0, 8, ..., 248
    assert data.warnings == []
    rare = read(write(tmp_path / "y", bits=lambda split, of_class, number: 16 if number == 0 else 12))
    assert ["4 of 24" in warning for warning in rare.warnings] == [True]


def test_a_class_of_another_bit_depth_is_warned_of(tmp_path: Path) -> None:
    data = read(write(tmp_path / "x", bits=lambda split, of_class, number: 16 if of_class == "PNEUMONIA" else 8))
    assert [warning.startswith("the bit depth of the ") for warning in data.warnings] == [True, True]
    assert [warning.split()[5] for warning in data.warnings] == ["train", "test"]


def test_classes_that_use_other_bits_of_like_files_are_warned_of(tmp_path: Path) -> None:
    """12 bits in 16-bit files become 16 times as dark as 16 bits beside them: brightness would tell the class."""
    data = read(write(tmp_path / "x", bits=lambda split, of_class, number: 16 if of_class == "PNEUMONIA" else 12))
    assert [warning.split()[5] for warning in data.warnings if warning.startswith("the bit depth")] == ["train", "test"]
    assert len(data.warnings) == 3
    assert data.warnings[-1].startswith("12 of 24 ")


def test_some_images_that_become_dark_are_warned_of(tmp_path: Path) -> None:
    """A third of 12 bits among 16, alike in both classes; 14 bits among 16 is what darker pictures need."""
    data = read(write(tmp_path / "x", bits=lambda split, of_class, number: 12 if number < 2 else 16))
    assert ["16 of 24" in warning for warning in data.warnings] == [True]
    assert read(write(tmp_path / "y", bits=lambda split, of_class, number: 14 if number < 2 else 16)).warnings == []


def test_values_with_an_offset_are_warned_of(tmp_path: Path) -> None:
    """As signed 16-bit values are written by some converters: five shades of grey are left."""
    folder = write(tmp_path / "x")
    for path in folder.rglob("*.png"):
        values = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 4 + 32768
        Image.fromarray(values).save(path)
    assert [warning for warning in read(folder).warnings if "shades of grey are left" in warning] != []


def test_a_link_that_leads_nowhere_is_counted(tmp_path: Path) -> None:
    folder = write(tmp_path / "x")
    (folder / "train/NORMAL/moved.png").symlink_to(tmp_path / "unmounted.png")
    data = read(folder)
    assert len(data.images) == 24
    assert data.left_out == {"images that cannot be read in train/NORMAL": 1}


@pytest.mark.parametrize(
    ("normal", "ill", "found"),
    [
        (["a"] * 10, ["a"] * 10, False),
        (["a"] * 10, ["a"] * 7 + ["b"] * 3, True),  # a difference of 0.3
        (["a"] * 10, ["a"] * 8 + ["b"] * 2, False),
        (["a"] * 4, ["b"] * 4, False),  # too few to tell
        ([str(n) for n in range(10)], [str(n) for n in range(10, 20)], False),  # every image another size
    ],
)
def test_what_depends_on_the_class(normal: list[str], ill: list[str], found: bool) -> None:
    kinds = {"NORMAL": [{"size": value} for value in normal], "PNEUMONIA": [{"size": value} for value in ill]}
    assert bool(warnings_of(kinds, "train")) == found


@pytest.mark.parametrize(
    "name",
    [
        lambda s, c, n: as_kaggle(s, c, n).replace(c, c.lower(), 1),
        lambda s, c, n: as_kaggle(s, c, n).replace(s, s.upper(), 1),
        lambda s, c, n: as_kaggle(s, c, n).replace(".png", ".JFIF"),
        lambda s, c, n: as_kaggle(s, c, n).replace(".png", ""),
        lambda s, c, n: as_kaggle(s, c, n).replace(c, f"{c}/export/2024", 1),
    ],
)
def test_other_cases_suffixes_and_depths_are_read(tmp_path: Path, name: Name) -> None:
    folder = tmp_path / "x"
    for split in ("train", "test"):
        for of_class in CLASSES:
            for number in range(EACH):
                path = folder / name(split, of_class, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(RAMP).save(path, "PNG")
    data = read(folder)
    assert (len(data.images), data.training_patients, len(data.offsets) - 1) == (24, 12, 24)
    assert (data.left_out, data.warnings) == ({}, [])


def test_a_folder_is_a_patient(tmp_path: Path) -> None:
    """Three patients of two images for each class and split, whose files have the same names in every folder."""

    def name(split: str, of_class: str, number: int) -> str:
        return f"{split}/{of_class}/{split}-{of_class}-{number // 2}/IM-0001-000{number % 2}.png"

    data = read(write(tmp_path / "x", name))
    assert data.offsets.tolist() == list(range(0, 26, 2))
    assert data.training_patients == 6
    assert (data.left_out, data.warnings) == ({}, [])


def test_a_patient_s_folder_in_both_splits_is_for_testing(tmp_path: Path) -> None:
    data = read(write(tmp_path / "x", lambda s, c, n: f"{s}/{c}/{c}-{n if s == 'train' else 9 + n // 3}/scan{n}.png"))
    assert data.left_out == {}
    data = read(write(tmp_path / "y", lambda s, c, n: f"{s}/{c}/{c}-{n if s == 'train' else 5 + n}/scan{n}.png"))
    assert data.left_out == {"training images of patients who are also in test": 2}  # NORMAL-5 and PNEUMONIA-5


def test_folders_numbered_anew_in_each_class_tell_no_patient(tmp_path: Path) -> None:
    """Else every training patient would count as one of test."""
    data = read(write(tmp_path / "x", lambda s, c, n: f"{s}/{c}/patient{n // 2}/scan{n}.png"))
    assert len(data.images) == 24
    assert (len(data.offsets) - 1, data.training_patients) == (12, 6)
    assert ["24 of 24" in warning for warning in data.warnings] == [True]


def test_a_folder_of_very_many_images_is_warned_of(tmp_path: Path) -> None:
    """21 of 33 training images lie in `2024`."""
    folder = write(tmp_path / "x")
    (folder / "train" / "NORMAL" / "2024").mkdir()
    for number in range(20):
        Image.fromarray(RAMP).save(folder / "train" / "NORMAL" / "2024" / f"{number}.png")
    assert read(folder).warnings == []
    Image.fromarray(RAMP).save(folder / "train" / "NORMAL" / "2024" / "20.png")
    assert ["21 of the 33 train images" in warning for warning in read(folder).warnings] == [True]


def test_what_is_not_read_is_counted_by_reason(tmp_path: Path) -> None:
    folder = write(tmp_path / "chest_xray")
    normal = folder / "train" / "NORMAL"
    for name in ("a.dcm", "deep/er/b.dcm", "c.DCM", "note.txt", "plain", "scan.Meier2024", "scan.12"):
        (normal / name).parent.mkdir(parents=True, exist_ok=True)
        (normal / name).write_bytes(b"no image")
    for name in (".DS_Store", "._IM-0001-0001.png", "Thumbs.db", "desktop.ini"):
        (normal / name).write_bytes(b"left behind")
    (normal / "cut.bmp").write_bytes(b"BM")
    for name in ("train/COVID/a.png", "train/readme.md", "val/NORMAL/a.png", "test/COVID/deep/b.png", "__MACOSX/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert read(folder).left_out == {
        "files with .dcm in train/NORMAL": 3,
        "files with .txt in train/NORMAL": 1,
        "files without a suffix that are not images in train/NORMAL": 1,
        "files with an unusual suffix in train/NORMAL": 2,
        "images that cannot be read in train/NORMAL": 1,
        "files in train/COVID, which is neither NORMAL nor PNEUMONIA": 1,
        "files in test/COVID, which is neither NORMAL nor PNEUMONIA": 1,
        "files in train beside the folders of the classes": 1,
        "files in val, which is neither train nor test": 1,
    }


def test_folders_of_patients_beside_the_classes_are_counted_without_their_names(tmp_path: Path) -> None:
    folder = write(tmp_path / "x")
    for number in range(7):
        (folder / "train" / f"Meier{number}").mkdir()
        (folder / "train" / f"Meier{number}" / "a.png").write_bytes(b"x")
    assert list_files(folder)[1] == {"files in folders of train that are neither NORMAL nor PNEUMONIA": 7}


def test_links_are_followed_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "x")
    (folder / "train" / "NORMAL" / "back").symlink_to(folder / "train")
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(RAMP).save(tmp_path / "elsewhere" / "NORMAL2-IM-0099-0001.png")
    (folder / "train" / "PNEUMONIA" / "more").symlink_to(tmp_path / "elsewhere")
    files, _ = list_files(folder)
    assert sum(file.path.name == "NORMAL2-IM-0099-0001.png" for file in files) == 2  # itself, and by `back`


def test_folders_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "x")
    (folder / "train" / "NORMAL").rename(folder / "train" / "normal")
    (folder / "train" / "Normal").mkdir()
    if len(list((folder / "train").iterdir())) < 3:
        pytest.skip("the file system takes them for one")
    with pytest.raises(BundleError) as error:
        read(folder)
    assert error.value.code == "data-malformed"


def test_the_folder_is_found(tmp_path: Path) -> None:
    write(tmp_path / "Chest_XRay" / "chest_xray")
    assert find_folder(tmp_path) == tmp_path / "Chest_XRay" / "chest_xray"
    assert find_folder(tmp_path / "Chest_XRay" / "chest_xray") == tmp_path / "Chest_XRay" / "chest_xray"
    assert find_folder(tmp_path / "nothing") is None


def test_names_of_files_stay_in_the_site_s_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / "x")
    (folder / "train" / "NORMAL" / "Meier_Hans.jpg").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        data = read(folder)
    assert "Meier_Hans" in caplog.text
    assert "Meier" not in str((data.left_out, data.warnings, data.notes))
