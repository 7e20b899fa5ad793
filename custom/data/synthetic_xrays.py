# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Images that look a little like chest X-rays, for trying the job out. Nothing is learned from them about anybody."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from custom.data.xrays import Xrays

NAME = "synthetic chest X-rays (generated, nobody's)"
TRAINING_PATIENTS, TEST_PATIENTS = 300, 100
ILL = 0.6  # share of the patients
TWICE = 3  # every third patient has two images
SEED = 0  # the same images at every site, whatever the seed of the job


def make_xrays(side: int) -> Xrays:
    """400 patients: two dark lungs each, and with pneumonia a bright patch in one of them."""
    generator = np.random.default_rng(SEED)
    patients = TRAINING_PATIENTS + TEST_PATIENTS
    ill = generator.random(patients) < ILL
    images_each = np.where(np.arange(patients) % TWICE == 0, 2, 1)
    labels = np.repeat(ill.astype(np.int64), images_each)
    images = np.stack([_draw(generator, side, bool(label)) for label in labels])
    offsets = np.cumsum([0, *images_each])
    return Xrays(NAME, True, images[..., None], labels, offsets, TRAINING_PATIENTS)


def _draw(generator: np.random.Generator, side: int, is_ill: bool) -> NDArray[np.uint8]:
    """uint8 of shape (side, side)."""
    down, right = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    image = 150 + 10 * np.sin(14 * down + generator.uniform(0, 6))  # ribs
    centres = [(generator.uniform(-0.1, 0.1), sign * generator.uniform(0.38, 0.48)) for sign in (-1, 1)]
    for y, x in centres:
        distance = ((down - y) / 0.65) ** 2 + ((right - x) / 0.3) ** 2
        image -= 80 / (1 + np.exp(12 * (distance - 1)))
    if is_ill:
        y, x = centres[generator.integers(2)]
        y, x = y + generator.uniform(-0.4, 0.4), x + generator.uniform(-0.1, 0.1)
        width = generator.uniform(0.12, 0.22)
        image += generator.uniform(40, 90) * np.exp(-((down - y) ** 2 + (right - x) ** 2) / (2 * width**2))
    image += generator.normal(0, 12, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)
