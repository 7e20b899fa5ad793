# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Writes small chest X-rays as the public data sets have them: folders of JPEGs, and PneumoniaMNIST's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from custom.data.xrays import CLASSES


def write_jpeg(path: Path, grey: int, size: tuple[int, int] = (90, 60)) -> Path:
    """An image of one grey; `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path, "JPEG")
    return path


def write_folder(root: Path, names: dict[str, dict[str, list[str]]]) -> Path:
    """`root`/chest_xray with a JPEG for each name, by split and class; greys count up from 10 in the given order."""
    grey = 10
    for split, classes in names.items():
        for name in CLASSES:
            (root / "chest_xray" / split / name).mkdir(parents=True, exist_ok=True)
        for name, stems in classes.items():
            for stem in stems:
                write_jpeg(root / "chest_xray" / split / name / f"{stem}.jpeg", grey)
                grey += 1
    return root / "chest_xray"


def many_patients(per_class: int, images_each: int = 2, first: int = 0) -> dict[str, list[str]]:
    """Names as in the real data set, of so many patients of each class."""
    numbers = range(first, first + per_class)
    return {
        "NORMAL": [f"IM-{n:04d}-{i + 1:04d}" for n in numbers for i in range(images_each)],
        "PNEUMONIA": [f"person{n}_bacteria_{10 * n + i}" for n in numbers for i in range(images_each)],
    }


def write_npz(path: Path, sizes: tuple[int, int, int] = (30, 6, 10), side: int = 28) -> Path:
    """PneumoniaMNIST's arrays: image i of a split has the grey i, and every third image is normal."""
    arrays = {}
    for split, number in zip(("train", "val", "test"), sizes, strict=True):
        greys = np.arange(number, dtype=np.uint8)
        arrays[f"{split}_images"] = np.broadcast_to(greys[:, None, None], (number, side, side))
        arrays[f"{split}_labels"] = (greys % 3 != 0).astype(np.uint8)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path
