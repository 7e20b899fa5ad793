# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Weights of the classes in the loss of a site whose classes are not equally frequent.

King and Zeng 2001, Logistic Regression in Rare Events Data, https://doi.org/10.1093/oxfordjournals.pan.a004868.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from custom.data.site_data import Batch, FiniteInputs, SiteData
from custom.errors import BundleError
from custom.learning.evaluate import evaluation_batch

CLASS_WEIGHTS = ("none", "balanced")


def check_class_weights(class_weights: object) -> None:
    """Raises BundleError unless it is `none` or `balanced`."""
    if class_weights not in CLASS_WEIGHTS:
        raise BundleError(
            code="setting-value",
            key="class_weights",
            expected=f"one of {', '.join(CLASS_WEIGHTS)}",
            got=repr(class_weights),
        )


def class_weights_of(setting: str, data: SiteData, device: torch.device) -> torch.Tensor | None:
    """The weights of a site's classes, on `device`; None if `setting` is `none`."""
    if setting == "none":
        return None
    if isinstance(data, FiniteInputs):
        batches: Iterable[Batch] = [(None, data.labels_of("train"))]
    else:
        batches = data.batches("train", evaluation_batch(data), torch.device("cpu"))
    return balanced(count_classes(batches, data.describe()["num_classes"])).to(device)


def count_classes(batches: Iterable[Batch], num_classes: int) -> torch.Tensor:
    """Number of samples of each class, int64 of shape (num_classes,)."""
    counts = torch.zeros(num_classes, dtype=torch.int64)
    for _, labels in batches:
        counts += torch.bincount(labels.cpu(), minlength=num_classes)
    return counts


def balanced(counts: torch.Tensor) -> torch.Tensor:
    """Weights with which each class that a site has counts as much as any other, and a sample counts 1 on average.

    Args:
        counts: training samples of each class, of shape (classes,).

    Returns:
        `samples / (classes present * counts)`, float32 of shape (classes,); 0 for a class without samples.
    """
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, 0.0).float()
