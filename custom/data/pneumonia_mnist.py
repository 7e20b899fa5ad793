# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""PneumoniaMNIST of MedMNIST v2 (Yang et al. 2023, https://arxiv.org/abs/2110.14795): the same study in a small file.

The file does not tell which images are of one patient, so each counts as a patient of its own. MedMNIST took its
validation images from the official training set; here they are training images again, and sites draw their own.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from custom.data.grey_image import fit
from custom.data.xrays import CLASSES, Xrays
from custom.errors import BundleError

FILE = "pneumoniamnist.npz"
URL = "https://zenodo.org/records/10519652/files/pneumoniamnist.npz"
DAMAGED = (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile)


def find_file(root: Path) -> Path | None:
    """The file in `root`, or in a folder of its own there; or `root` itself, where it is a file."""
    places = (root / FILE, root / Path(FILE).stem / FILE, *([root] if root.suffix == ".npz" else []))
    return next((place for place in places if place.is_file()), None)


def open_pneumonia_mnist(path: Path, side: int | None) -> Xrays:
    """All images of the file, resized if `side` is not None.

    Raises:
        BundleError: the file is cut short, damaged, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = [_part(arrays, split) for split in ("train", "val", "test")]
    except DAMAGED as error:
        raise BundleError(
            "truncated or corrupt, or not PneumoniaMNIST",
            code="data-damaged",
            key=str(path),
            got=error,
            remedy=f"download it again from {URL}",
        ) from error
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    if side is not None and side != images.shape[1]:
        images = np.stack([fit(Image.fromarray(image), side) for image in images])
    return Xrays(
        name="PneumoniaMNIST",
        embedded=False,
        images=images[..., None],
        labels=labels,
        offsets=np.arange(len(labels) + 1),
        training_patients=len(labels) - len(parts[-1][1]),
    )


def _part(arrays: np.lib.npyio.NpzFile, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images of shape (images, side, side) and labels of shape (images,) of one split."""
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    number = len(images)
    square = images.dtype == np.uint8 and images.ndim == 3 and images.shape[1] == images.shape[2]
    if not number or not square or labels.shape != (number, 1):
        raise ValueError(f"{split}: {images.dtype} images {images.shape}, labels {labels.shape}")
    odd = np.flatnonzero(~np.isin(labels[:, 0], range(len(CLASSES))))
    if len(odd):
        raise ValueError(f"{split}_labels row {odd[0]}: {labels[odd[0], 0]}, which is neither 0 nor 1")
    return images, labels[:, 0].astype(np.int64)
