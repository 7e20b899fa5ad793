# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Warns where the file format tells the class: a model can learn the format in place of the disease.

Compares the classes in one fact at a time, such as the bit depth: the share of images that have a value of it. Images
of two hospitals, or of two exporters, that were put together by class differ so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

FEWEST = 5  # images of each class
DIFFERENCE = 0.3  # of the shares


def warnings_of(kinds: Mapping[str, Sequence[Mapping[str, str]]], where: str) -> list[str]:
    """A sentence for each fact that differs between two classes.

    Args:
        kinds: by class, the facts of each image, such as `{"bit depth": "8 bits", "format": "PNG"}`.
        where: which images these are, such as `train`.
    """
    classes = {name: images for name, images in kinds.items() if len(images) >= FEWEST}
    facts = {fact: None for images in classes.values() for image in images for fact in image}
    found = []
    for fact in facts if len(classes) > 1 else ():
        shares = {name: _shares(images, fact) for name, images in classes.items()}
        values = {value for of_class in shares.values() for value in of_class}
        spread = {value: [of_class.get(value, 0.0) for of_class in shares.values()] for value in sorted(values)}
        value = max(spread, key=lambda value: max(spread[value]) - min(spread[value]))
        if max(spread[value]) - min(spread[value]) >= DIFFERENCE:
            parts = ", ".join(f"{100 * of_class.get(value, 0.0):.0f} % of {name}" for name, of_class in shares.items())
            found.append(
                f"the {fact} of the {where} images depends on their class ({value}: {parts}); a model can learn it in "
                "place of what the images show"
            )
    return found


def _shares(images: Sequence[Mapping[str, str]], fact: str) -> dict[str, float]:
    counts = Counter(image[fact] for image in images)
    return {value: count / len(images) for value, count in counts.items()}
