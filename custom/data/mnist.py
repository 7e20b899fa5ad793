# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""MNIST (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist) from its four published files.

Getting and reading the files is `custom.data.mnist_writers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from custom.data.digits import SIDE, digit_shape, lay_out
from custom.data.download import damaged
from custom.data.mnist_writers import IMAGES, TEST, TRAIN, SplitFiles, find_file, read_idx, read_labels

FOLDER = "MNIST/raw"


class Mnist:
    """60,000 digits to train on, 10,000 to test on; see `custom.data.image_source.ImageSource`. Keeps no images.

    Args:
        root: holds, or is to hold, the folder `MNIST/raw`.
        grey: as they are, 1 x 28 x 28; else shaped like CIFAR-10, 3 x 32 x 32.
        splits: the training files, then the test files.

    Raises:
        Unavailable: a file is not there and cannot be downloaded.
    """

    name = "MNIST"
    embedded = False
    num_classes = 10
    mirrored = False

    def __init__(self, root: Path, grey: bool, splits: Sequence[SplitFiles] = (TRAIN, TEST)) -> None:
        self.shape = digit_shape(grey)
        self.mean: tuple[float, ...] = (0.1307,) if grey else (0.1001,) * 3
        self.std: tuple[float, ...] = (0.3081,) if grey else (0.2752,) * 3
        self._files = dict(zip(("train", "test"), splits, strict=True))
        self._paths = {file: find_file(root, file) for split in splits for file in (split.images, split.labels)}

    def labels(self, split: str) -> NDArray[np.int64]:
        """All labels of `split`, of shape (samples,).

        Raises:
            BundleError: the file is damaged.
        """
        file = self._files[split].labels
        return read_labels(file, self._paths[file])

    def images(self, split: str, rows: NDArray[np.int64]) -> torch.Tensor:
        """The images at `rows` of `split`: uint8 (len(rows), *shape).

        Raises:
            BundleError: the file is damaged, or has another number of images than there are labels.
        """
        file = self._files[split].images
        path = self._paths[file]
        pixels = read_idx(file, path, IMAGES)
        expected = (len(self.labels(split)), SIDE, SIDE)
        if pixels.shape != expected:
            raise damaged(path, f"{expected[0]} images of {SIDE} x {SIDE} pixels", f"{pixels.shape}", path)
        return lay_out(pixels[rows], self.shape)
