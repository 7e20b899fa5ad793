# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Chest X-rays in the folders of the public Kaggle data set: chest_xray/{train,test}/{NORMAL,PNEUMONIA}.

https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia. Images are made grey and square, and resized
once, into a cache. Every file that is seen there is either used or counted by reason.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from custom.data.format_by_class import warnings_of
from custom.data.grey_image import NO_IMAGE, Grey, depth_of, read_grey, to_bytes
from custom.data.remarks import left_out_line
from custom.data.writer_cache import open_converted, save
from custom.data.xray_files import SPLITS, XrayFile, list_files
from custom.data.xrays import CLASSES, Xrays
from custom.errors import BundleError

RULES = 3  # another number where images are read in another way: what was converted before is not used then
MOST_NAMED = 5
LONGEST_SUFFIX = 6
LARGEST_PATIENT = 20  # images; more, in one folder, are looked at
DARKER = 4  # bits: an image that needs so many fewer than the others becomes 16 times as dark
FEW_SHADES = 100  # of grey, of 256
MOST_DARK = 0.05  # the share of such images that is nothing unusual

logger = logging.getLogger(__name__)


def open_chest_xray(folder: Path, side: int, cache_dir: Path) -> Xrays:
    """Converts the images of `folder` unless that was done before.

    Training images of a patient who also has images in `test` are left out, and so is what cannot be read as an image;
    all are counted by reason.

    Args:
        folder: holds `train` and `test`, and these `NORMAL` and `PNEUMONIA`.
        side: pixels a side that images get.
        cache_dir: see `custom.data.writer_cache.open_converted`.

    Raises:
        BundleError: a folder is missing, a split has no image that can be read, or the cache cannot be written.
    """
    files, elsewhere = list_files(folder)
    convert = partial(_convert, folder, files, side)
    data = open_converted(cache_dir, f"chest-xray-{RULES}-{side}", [file.path for file in files], convert)
    return Xrays(
        name="chest X-rays (image files)",
        embedded=False,
        images=data.images,
        labels=data.labels,
        offsets=data.offsets,
        training_patients=data.facts["training_patients"],
        left_out={**data.facts["left_out"], **elsewhere},
        warnings=data.facts["warnings"],
        notes=data.facts["notes"],
    )


def _convert(folder: Path, files: Sequence[XrayFile], side: int, work: Path) -> None:
    """Writes the arrays of `custom.data.writer_cache` to `work`, with a patient for a writer."""
    tested = {file.patient for file in files if file.is_test}
    used = [file for file in files if file.is_test or file.patient not in tested]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # JPEG decoding leaves Python's lock
        read = list(pool.map(partial(read_grey, side), (file.path for file in used)))
    left_out = Counter(_reason(file, why) for file, why in zip(used, read, strict=True) if isinstance(why, str))
    left_out["training images of patients who are also in test"] = len(files) - len(used)
    _name_some([file.path for file, why in zip(used, read, strict=True) if isinstance(why, str)])
    good = [(file, image) for file, image in zip(used, read, strict=True) if isinstance(image, Grey)]
    del read
    _check_splits(folder, [file.is_test for file, _ in good], +left_out)
    bits = depth_of(max(image.peak for _, image in good))
    facts = {"warnings": _warnings(good, bits), "notes": _notes([image for _, image in good], bits)}
    groups = [(file.is_test, file.patient) for file, _ in good]
    labels = np.array([file.label for file, _ in good], dtype=np.int64)
    starts = [place for place, group in enumerate(groups) if place == 0 or group != groups[place - 1]]
    _save_images(work / "images.npy", [image for _, image in good], side, bits)
    save(
        work,
        labels,
        np.array([*starts, len(groups)], dtype=np.int64),
        training_patients=sum(not groups[start][0] for start in starts),
        left_out=dict(+left_out),
        **facts,
    )


def _reason(file: XrayFile, why: str) -> str:
    """`files with .dcm in train/NORMAL`: by suffix where it is no image."""
    suffix = file.path.suffix.lower()
    if why == NO_IMAGE and suffix:
        plain = len(suffix) <= LONGEST_SUFFIX and suffix[1:].isalnum() and not suffix[1:].isdigit()
        why = f"files with {suffix}" if plain else "files with an unusual suffix"  # which may be a part of a name
    elif why == NO_IMAGE:
        why = "files without a suffix that are not images"
    return f"{why} in {file.place}"


def _name_some(paths: Sequence[Path]) -> None:
    """In the site's own log alone: names of files may be those of patients."""
    if paths:
        some = ", ".join(map(str, paths[:MOST_NAMED])) + (" ..." if len(paths) > MOST_NAMED else "")
        logger.warning("files that are not read, %d in all: %s", len(paths), some)


def _check_splits(folder: Path, are_test: Sequence[bool], left_out: Counter[str]) -> None:
    """Both splits have images."""
    for split in SPLITS:
        if (split == "test") not in are_test:
            seen = left_out_line({reason: count for reason, count in left_out.items() if split in reason})
            raise BundleError(
                f"no image of {split} can be used",
                code="data-missing",
                key=str(folder),
                expected=f"images of chest X-rays in {split}/{' or '.join(CLASSES)}",
                got=seen or "no file there",
                remedy="put images there that can be read; folders of patients in train need other names than in test",
            )


def _warnings(good: Sequence[tuple[XrayFile, Grey]], bits: int) -> list[str]:
    """What may make results wrong."""
    found = []
    for split in SPLITS:
        kinds = {
            name: [image.kind for file, image in good if file.is_test == (split == "test") and file.label == label]
            for label, name in enumerate(CLASSES)
        }
        found += warnings_of(kinds, split)
        folders = Counter(file.patient for file, _ in good if file.is_test == (split == "test") and file.in_folder)
        largest, total = max(folders.values(), default=0), sum(map(len, kinds.values()))
        if largest > LARGEST_PATIENT and largest > total / 5:
            found.append(
                f"{largest:,} of the {total:,} {split} images are in one folder, which counts as one patient; where it "
                "is not, put the images into the class folder itself"
            )
    if nameless := sum(not file.named for file, _ in good):
        found.append(
            f"the names of {nameless:,} of {len(good):,} images and of their folders tell no patient for sure: images "
            "of one patient may be on both sides of a split"
        )
    deep = Counter(depth_of(image.peak) for _, image in good if image.peak)
    dark = sum(count for depth, count in deep.items() if depth <= bits - DARKER)
    if deep and bits > min(deep) and (2 * deep[bits] < deep.total() or dark > MOST_DARK * deep.total()):
        found.append(
            f"{deep[bits]:,} of {deep.total():,} images above 8 bits need {bits} bits, and all are scaled alike: "
            "the others, which need fewer, become dark; write all with one bit depth, or remove those that differ"
        )
    if high := [image for _, image in good if image.peak]:
        low, peak = min(int(image.pixels.min()) for image in high), max(image.peak for image in high)
        if (shades := (peak - low) * 255 // (2**bits - 1) + 1) < FEW_SHADES:
            found.append(
                f"images above 8 bits have values from {low:,} to {peak:,} of 0 to {2**bits - 1:,}, so {shades} of 256 "
                "shades of grey are left: write them without the offset"
            )
    return found


def _notes(images: Sequence[Grey], bits: int) -> list[str]:
    """How the images were read, where that is not plain."""
    deep, clear = sum(image.peak > 0 for image in images), sum(image.transparent for image in images)
    scaled = f"scaled from {bits} bits to 8" if bits > 8 else "of which 8 are in use"
    notes = [f"{deep:,} of {len(images):,} images have more than 8 bits a pixel, {scaled}"]
    transparent = f"transparent pixels are read as black, in {clear:,} of {len(images):,} images"
    return notes * bool(deep) + [transparent] * bool(clear)


def _save_images(path: Path, images: list[Grey], side: int, bits: int) -> None:
    """As one array of shape (images, side, side, 1). Empties the list, so that no image is in memory twice."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (len(images), side, side, 1))
    for place in reversed(range(len(images))):
        array[place, ..., 0] = to_bytes(images.pop().pixels, bits)
    array.flush()
