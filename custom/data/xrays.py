# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Chest X-rays by patient: what every source of them gives, and how patients are told apart.

The study is Kermany et al. 2018, https://doi.org/10.1016/j.cell.2018.02.010: children, normal or with pneumonia.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

CLASSES = ("NORMAL", "PNEUMONIA")  # by label
# person123_bacteria_456, IM-0115-0001, NORMAL2-IM-0373-0001-0002: all but the number of the image.
_PATIENT = re.compile(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-", re.IGNORECASE)


@dataclass(frozen=True)
class Xrays:
    """Grey images of two classes, grouped by patient; see `custom.data.image_source.ImageFacts`.

    Attributes:
        name: what reports call it.
        embedded: they are made up.
        images: uint8 of shape (images, side, side, 1).
        labels: of shape (images,), see CLASSES.
        offsets: patient i has the images from offsets[i] to offsets[i + 1].
        training_patients: the first so many patients are for training, the others for testing.
        left_out: number of files and images that are not used, by reason.
        warnings, notes: see `custom.data.remarks`.
    """

    name: str
    embedded: bool
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    training_patients: int
    left_out: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    num_classes = len(CLASSES)
    mean = (0.5,)  # alike at every site, whatever its own images are
    std = (0.25,)
    mirrored = False  # the heart is on the left

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        return (1, *self.images.shape[1:3])

    def patients(self, split: str) -> NDArray[np.int64]:
        """The numbers of the patients of `train` or `test`."""
        number = len(self.offsets) - 1
        return np.arange(self.training_patients) if split == "train" else np.arange(self.training_patients, number)

    def label_of(self, patients: NDArray[np.int64]) -> NDArray[np.int64]:
        """The label of each patient's first image."""
        return np.asarray(self.labels)[self.offsets[patients]]

    def rows(self, patients: NDArray[np.int64]) -> NDArray[np.int64]:
        """The images of these patients, in their order."""
        parts = [np.arange(self.offsets[patient], self.offsets[patient + 1]) for patient in patients]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def digest(self) -> str:
        """Tells one content from another: 12 hexadecimal digits."""
        md5 = hashlib.md5(usedforsecurity=False)
        for array in (self.images, self.labels, self.offsets, np.array([self.training_patients])):
            md5.update(np.ascontiguousarray(array).data)
        return md5.hexdigest()[:12]


def patient_of(stem: str) -> tuple[str, bool, bool]:
    """The patient that a file's name (without suffix) tells, whether it does, and whether no other has that name.

    Bacterial and viral pneumonia of one number count as one patient, to be on the safe side. An image whose name is of
    another kind is a patient of its own. `IM-0001-0001` is also what viewers call the first image of any patient.
    """
    match = _PATIENT.match(stem)
    if not match:
        return stem, False, False
    patient = (match[1] or match[2]).lower()
    return patient, True, not patient.startswith("im-")
