# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How a metric is averaged over sites: weighted by the samples, or pairs of them, that it is itself a mean over.

The mean of sensitivities weighted by positive samples, and of specificities weighted by negative ones, is what all
samples together would give. That is not so for the area under the ROC curve (AUC), unless sites gave away the scores of
their samples. Weighted by pairs of a positive and a negative sample, its mean has a meaning of its own: how often, of
two samples of one site, the positive one gets the higher score. It is called the AUC within sites.
"""

from __future__ import annotations

from collections.abc import Mapping

POSITIVES, NEGATIVES = "positives", "negatives"


def is_count(name: str) -> bool:
    """Is it a number of samples, such as `val_positives`? Over sites it is added up."""
    return name.rpartition("_")[2] in (POSITIVES, NEGATIVES)


def weight(name: str, metrics: Mapping[str, float], samples: float) -> float:
    """What a site's metric weighs in the mean over sites.

    Args:
        name: of the metric, such as `val_auc`.
        metrics: all of that site; those of two classes come with `val_positives` and `val_negatives`.
        samples: weight of a metric that is a mean over all samples, such as accuracy or loss.
    """
    prefix, _, kind = name.rpartition("_")
    positives, negatives = (metrics.get(f"{prefix}_{count}") for count in (POSITIVES, NEGATIVES))
    if positives is None or negatives is None:
        return samples
    weights = {"sensitivity": positives, "specificity": negatives, "auc": positives * negatives}
    return weights.get(kind, samples)


def weighted_mean(metrics: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]) -> dict[str, float]:
    """Mean of each metric but counts over the sites that report it; sites in name order.

    Weighted as `weight` says, with `weights` as the samples.
    """
    totals: dict[str, float] = {}
    shares: dict[str, float] = {}
    for site in sorted(metrics):
        for name, value in metrics[site].items():
            share = 0.0 if is_count(name) else weight(name, metrics[site], weights[site])
            totals[name] = totals.get(name, 0.0) + share * value
            shares[name] = shares.get(name, 0.0) + share
    return {name: totals[name] / shares[name] for name in totals if shares[name] > 0}
