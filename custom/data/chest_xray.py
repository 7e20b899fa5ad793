# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Chest X-rays in the folders of the public Kaggle data set: chest_xray/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg or png.

https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia. Its folder `val` has 16 images and is ignored,
like everything else that lies there. Images are made grey and square, and resized once, into a cache.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from custom.data.writer_cache import open_converted, save
from custom.data.xrays import CLASSES, Xrays, patient_of
from custom.errors import BundleError

FOLDER = "chest_xray"
SPLITS = ("train", "test")
SUFFIXES = (".jpeg", ".jpg", ".png")
LEFT_OUT = ("corrupt_images", "training_images_of_test_patients")
MOST_NAMED = 5

logger = logging.getLogger(__name__)


class _File(NamedTuple):
    """One image; in this order the patients of a split stand together, the training patients first."""

    is_test: bool
    patient: str
    label: int
    path: Path
    named: bool  # does the name tell the patient?


def find_folder(root: Path) -> Path | None:
    """The folder `chest_xray` below `root`, or the one inside it that Kaggle's archive has, or `root` itself."""
    places = (root / FOLDER, root / FOLDER / FOLDER, root)
    return next((place for place in places if any((place / split).is_dir() for split in SPLITS)), None)


def open_chest_xray(folder: Path, side: int, cache_dir: Path) -> Xrays:
    """Converts the images of `folder` unless that was done before.

    Training images of a patient who also has images in `test` are left out, and so are images that cannot be read;
    both are counted.

    Args:
        folder: holds `train` and `test`, and these `NORMAL` and `PNEUMONIA`.
        side: pixels a side that images get.
        cache_dir: see `custom.data.writer_cache.open_converted`.

    Raises:
        BundleError: a folder is missing, a split has no image that can be read, or the cache cannot be written.
    """
    files = [file for split in SPLITS for label in range(len(CLASSES)) for file in _list(folder, split, label)]
    files.sort(key=lambda file: file[:4])
    convert = partial(_convert, folder, files, side)
    data = open_converted(cache_dir, f"chest-xray-{side}", [file.path for file in files], convert)
    left_out = {reason: data.facts[reason] for reason in LEFT_OUT}
    for reason, number in left_out.items():
        if number:
            logger.warning("%s: %d %s are left out", folder, number, reason.replace("_", " "))
    if nameless := sum(not file.named for file in files):
        logger.warning("%s: %d names tell no patient; each such image counts as a patient of its own", folder, nameless)
    return Xrays(
        name="chest X-rays (JPEG)",
        embedded=False,
        images=data.images,
        labels=data.labels,
        offsets=data.offsets,
        training_patients=data.facts["training_patients"],
        left_out=left_out,
    )


def _list(folder: Path, split: str, label: int) -> list[_File]:
    path = folder / split / CLASSES[label]
    if not path.is_dir():
        raise BundleError(
            "no such folder",
            code="data-missing",
            key=str(path),
            expected=f"{FOLDER}/{{{','.join(SPLITS)}}}/{{{','.join(CLASSES)}}} with JPEG or PNG images",
            got="none",
            remedy="point dataset_path or FLARE_DATA_ROOT at the folder that chest_xray lies in; a site without such "
            "patients needs an empty folder",
        )
    found = (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    return [_File(split == "test", *_patient(file, label)) for file in found]


def _patient(path: Path, label: int) -> tuple[str, int, Path, bool]:
    patient, named = patient_of(path.stem)
    return patient if named else "/".join(path.parts[-3:]), label, path, named  # split, class and name: only this file


def _convert(folder: Path, files: Sequence[_File], side: int, work: Path) -> None:
    """Writes the arrays of `custom.data.writer_cache` to `work`, with a patient for a writer."""
    tested = {file.patient for file in files if file.is_test}
    used = [file for file in files if file.is_test or file.patient not in tested]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # JPEG decoding leaves Python's lock
        read = list(pool.map(partial(_read_or_none, side), (file.path for file in used)))
    good = [file for file, image in zip(used, read, strict=True) if image is not None]
    corrupt = [file.path for file, image in zip(used, read, strict=True) if image is None]
    if corrupt:
        some = ", ".join(map(str, corrupt[:MOST_NAMED])) + (" ..." if len(corrupt) > MOST_NAMED else "")
        logger.warning("%d images cannot be read and are skipped: %s", len(corrupt), some)
    groups = [(file.is_test, file.patient) for file in good]
    for split in SPLITS:
        if not any(is_test == (split == "test") for is_test, _ in groups):
            got = f"none that can be read, of {sum(file.is_test == (split == 'test') for file in used)}"
            raise BundleError(
                code="data-missing", key=str(folder / split), expected="JPEG or PNG images of chest X-rays", got=got
            )
    starts = [place for place, group in enumerate(groups) if place == 0 or group != groups[place - 1]]
    images = [image for image in read if image is not None]
    del read  # so that `images` alone holds them
    _save_images(work / "images.npy", images)
    save(
        work,
        np.array([file.label for file in good], dtype=np.int64),
        np.array([*starts, len(good)], dtype=np.int64),
        training_patients=sum(not groups[start][0] for start in starts),
        **dict(zip(LEFT_OUT, (len(corrupt), len(files) - len(used)), strict=True)),
    )


def _save_images(path: Path, images: list[NDArray[np.uint8]]) -> None:
    """As one array of shape (images, side, side, 1). Empties the list, so that no image is in memory twice."""
    shape = (len(images), *images[0].shape, 1)
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    for place in reversed(range(len(images))):
        array[place, ..., 0] = images.pop()
    array.flush()


def _read_or_none(side: int, path: Path) -> NDArray[np.uint8] | None:
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:  # some are PNG files by another name
            image.draft("L", (2 * side, 2 * side))  # decodes a large JPEG at a half or a quarter of its size
            return fit(image, side)
    except Exception:  # a damaged image can raise anything
        return None


def fit(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Grey, cut to the square in the middle and resized, as MedMNIST does (https://arxiv.org/abs/2110.14795)."""
    return np.asarray(ImageOps.fit(image.convert("L"), (side, side), Image.Resampling.BICUBIC))
