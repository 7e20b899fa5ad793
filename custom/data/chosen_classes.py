# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Some classes of a data set, as a data set of its own: 3 against 7, in place of ten digits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from custom.data.image_source import ImageSource


class ChosenClasses:
    """See `custom.data.image_source.ImageSource`.

    Args:
        source: all classes.
        classes: those to keep; the first becomes class 0, the next class 1, and so on.
    """

    def __init__(self, source: ImageSource, classes: Sequence[int]) -> None:
        self._source, self._classes = source, tuple(classes)
        self.name = f"{source.name}, classes {', '.join(map(str, classes))}"
        self.embedded, self.mirrored, self.num_classes = source.embedded, source.mirrored, len(classes)
        self.shape, self.mean, self.std = source.shape, source.mean, source.std

    def labels(self, split: str) -> NDArray[np.int64]:
        """All labels of `split` that are kept, numbered anew, of shape (samples,)."""
        numbers = np.full(self._source.num_classes, -1, dtype=np.int64)
        numbers[list(self._classes)] = np.arange(len(self._classes))
        renamed: NDArray[np.int64] = numbers[self._source.labels(split)]
        return renamed[renamed >= 0]

    def images(self, split: str, rows: NDArray[np.int64]) -> torch.Tensor:
        """The images at the ascending `rows` among those that are kept: uint8 (len(rows), *shape)."""
        kept = np.flatnonzero(np.isin(self._source.labels(split), self._classes))
        return self._source.images(split, kept[rows])
