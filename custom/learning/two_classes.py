# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How well a model tells two classes apart: class 1 is positive, such as ill, and class 0 negative.

The area under the ROC curve is the rank statistic of Mann and Whitney: Hanley and McNeil 1982,
https://doi.org/10.1148/radiology.143.1.7063747.
"""

from __future__ import annotations

import torch

from custom.metrics import NEGATIVES, POSITIVES


def area_under_roc(scores: torch.Tensor, labels: torch.Tensor) -> float | None:
    """How often a positive sample scores higher than a negative one, ties counted half.

    Args:
        scores: of shape (samples,), the higher the more likely positive.
        labels: of shape (samples,), 0 or 1.

    Returns:
        In [0, 1]; None if one of the classes has no sample, as there is nothing to compare then.
    """
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return None
    _, places, counts = torch.unique(scores.double(), return_inverse=True, return_counts=True)
    highest = counts.cumsum(0).double()
    ranks = highest - (counts - 1) / 2  # equal scores share the mean of their ranks, from 1 on
    of_positives = float(ranks[places][labels == 1].sum())
    return (of_positives - positives * (positives + 1) / 2) / (positives * negatives)


def two_class_metrics(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Scores of a model with two outputs.

    Args:
        logits: of shape (samples, 2); the greater one is the prediction.
        labels: of shape (samples,), 0 or 1.

    Returns:
        `positives` and `negatives`, the number of samples of each class; `sensitivity`, the share of the positive
        samples that are found; `specificity`, likewise of the negative ones; and `auc`. What is about a class without
        samples is left out.
    """
    predicted = logits.argmax(1)
    positive = labels == 1
    metrics = {POSITIVES: float(positive.sum()), NEGATIVES: float((~positive).sum())}
    if metrics[POSITIVES]:
        metrics["sensitivity"] = float((predicted[positive] == 1).double().mean())
    if metrics[NEGATIVES]:
        metrics["specificity"] = float((predicted[~positive] == 0).double().mean())
    area = area_under_roc(logits[:, 1].double() - logits[:, 0].double(), labels)
    return metrics if area is None else metrics | {"auc": area}
