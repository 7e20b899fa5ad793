# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a set of labelled images offers before it is split over the sites."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class ImageSource(Protocol):
    """Images of 3 x 32 x 32 bytes in two official splits, `train` and `test`.

    Attributes:
        name: what reports call it.
        embedded: the images ship with the software, so they are for trying things out.
        num_classes: labels are 0 .. num_classes - 1.
        mean: per channel, of pixels scaled to [0, 1], over the official training set.
        std: likewise.
        mirrored: a mirrored image is still of the same class.
    """

    name: str
    embedded: bool
    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mirrored: bool

    def labels(self, split: str) -> NDArray[np.int64]:
        """All labels of `split`, of shape (samples,)."""

    def images(self, split: str, rows: NDArray[np.int64]) -> torch.Tensor:
        """The images at the ascending `rows` of `split`: uint8 of shape (len(rows), 3, 32, 32), best channels last."""
