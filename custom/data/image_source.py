# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a set of labelled images offers before it is split over the sites."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class ImageFacts(Protocol):
    """What all images of a data set have in common.

    Attributes:
        name: what reports call it.
        embedded: the images ship with the software, so they are for trying things out.
        num_classes: labels are 0 .. num_classes - 1.
        shape: channels, side and side, in pixels.
        mean: per channel, of pixels scaled to [0, 1], over the official training set.
        std: likewise.
        mirrored: a mirrored image is still of the same class.
    """

    @property
    def name(self) -> str: ...
    @property
    def embedded(self) -> bool: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def mirrored(self) -> bool: ...


class ImageSource(ImageFacts, Protocol):
    """Images of bytes in two official splits, `train` and `test`."""

    def labels(self, split: str) -> NDArray[np.int64]:
        """All labels of `split`, of shape (samples,)."""

    def images(self, split: str, rows: NDArray[np.int64]) -> torch.Tensor:
        """The images at the ascending `rows` of `split`: uint8 (len(rows), *shape), best channels last."""
