# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Metrics: whether a high or a low value is good, and how a metric is averaged over sites.

A mean is weighted by the samples, or pairs of them, that the metric is itself a mean over. The best model is not chosen
by that mean, in which one site counts as much as it says, but by `selection_score`.

The mean of sensitivities weighted by positive samples, and of specificities weighted by negative ones, is what all
samples together would give. That is not so for the area under the ROC curve (AUC), unless sites gave away the scores of
their samples. Weighted by pairs of a positive and a negative sample, its mean has a meaning of its own: how often, of
two samples of one site, the positive one gets the higher score. It is called the AUC within sites.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import pairwise

from custom.errors import BundleError

POSITIVES, NEGATIVES = "positives", "negatives"
FEWEST_TRIMMED = 3  # sites
TRIMMED_PART = 5  # one of so many sites is left out at either end
TRIMMED_MEAN = "trimmed mean of the sites"
WRITERS = ("writers", "dropped_writers")  # that were trained or scored
HIGHER_IS_BETTER = (
    *("accuracy", "acc", "auc", "auroc", "auprc", "sensitivity", "specificity", "precision", "recall", "f1", "dice"),
    *("iou", "jaccard", "kappa", "mcc", "r2", "ap", "map", "ppv", "npv", "tpr", "tnr", "bleu", "rouge", "psnr", "ssim"),
    *("correlation", "likelihood", "skill"),
)
LOWER_IS_BETTER = (
    *("loss", "losses", "error", "errors", "err", "mae", "mse", "rmse", "mape", "nll", "bce", "ce", "entropy"),
    *("perplexity", "ppl", "wer", "cer", "brier", "ece", "fpr", "fnr", "deviance", "distance", "divergence"),
)
SCORE = "score"  # high is good, unless another word says what it is a score of: the Brier score is a loss
LONG = 4  # letters from which a word is also looked for at the end of a longer one, such as `logloss`


def lower_is_better(name: str) -> bool | None:
    """Is a low value of this metric good? None if no known word is in its name.

    The last known word decides: `val_loss` and `accuracy_error` are lower-is-better, `val_balanced_accuracy` is not.
    The word `neg` says that a metric was negated, and so does `negative_log_likelihood`.
    """
    words = words_of(name)
    found = [known for known in map(_lower, words) if known is not None]
    if not found:
        return False if SCORE in words and not _negated(words) else None
    return found[-1] != _negated(words)


def words_of(name: str) -> list[str]:
    """`["val", "accuracy"]` of `val_accuracy`."""
    return re.split(r"[^a-z0-9]+", name.lower())


def _negated(words: list[str]) -> bool:
    return "neg" in words or ("negative", "log") in pairwise(words)


def _lower(word: str) -> bool | None:
    for lower, known in ((True, LOWER_IS_BETTER), (False, HIGHER_IS_BETTER)):
        if is_one_of(word, known):
            return lower
    return None


def is_one_of(word: str, known: tuple[str, ...]) -> bool:
    """Is the word one of those, or does it end with a longer one of them, as `logloss` does?"""
    return any(word == one or (len(one) >= LONG and word.endswith(one)) for one in known)


def check_direction(metric: str, negate: bool | None) -> None:
    """Compares `negate_key_metric`, as it is set, with what is known of the metric.

    Raises:
        BundleError: they contradict each other; or it is null, and nothing is known.
    """
    lower = lower_is_better(metric)
    if lower is None and negate is None:
        problem = f"it is not known whether a high or a low {metric} is good"
        remedy = "set negate_key_metric: true if low is good, false if high is"
        raise BundleError(problem, code="setting-value", key="negate_key_metric", remedy=remedy)
    if negate is not None and lower is not None and bool(negate) != lower:
        good = "low" if lower else "high"
        raise BundleError(
            f"a {good} {metric} is good, so the worst model would be selected",
            code="setting-value",
            key="negate_key_metric",
            expected=str(lower).lower(),
            got=str(negate).lower(),
        )


def unknown_metric(metric: str, reported: list[str]) -> BundleError:
    """Of a metric that no site reports."""
    names = ", ".join(name for name in reported if not is_count(name))
    return BundleError(
        "the sites do not report this metric",
        code="metric-unknown",
        key="key_metric",
        got=metric,
        remedy=f"they report {names}",
    )


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
    """Mean of each metric over the sites that report it, in name order; a count's sum.

    Args:
        metrics: by site.
        weights: number of samples by site. Weighted as `weight` says; a plain mean where no weight is known or above 0.
    """
    means: dict[str, float] = {}
    for name in sorted({name for site in metrics.values() for name in site}):
        pairs = [
            (values[name], float(weight(name, values, weights.get(site) or 0)))
            for site, values in sorted(metrics.items())
            if name in values
        ]
        total = sum(share for _, share in pairs)
        if is_count(name):
            means[name] = sum(value for value, _ in pairs)
        elif total > 0:
            means[name] = sum(share * value for value, share in pairs) / total
        else:
            means[name] = sum(value for value, _ in pairs) / len(pairs)
    return means


def selection_score(
    name: str, metrics: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]
) -> tuple[float, str] | None:
    """By what the best model is chosen: from three sites on a trimmed mean, in which every site counts alike.

    The lowest and the highest fifth of the sites, at least one of each, do not count. So a site that says 1.0 for a
    poor model does not make it the best, and neither does one that overstates its number of samples; in the weighted
    mean of the table either would do. docs/adr/0008-selection.md has what that costs where all are honest.

    Args:
        name: of the metric.
        metrics: by site.
        weights: number of samples by site, for fewer than three sites, whose mean is that of `weighted_mean`.

    Returns:
        The score and the name of the rule, empty for the mean; None if no site reports the metric.
    """
    values = sorted(values[name] for values in metrics.values() if name in values)
    if len(values) < FEWEST_TRIMMED:
        return (weighted_mean(metrics, weights)[name], "") if values else None
    kept = values[(cut := max(1, len(values) // TRIMMED_PART)) : -cut]
    return math.fsum(kept) / len(kept), TRIMMED_MEAN
