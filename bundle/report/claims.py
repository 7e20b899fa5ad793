# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which site scores models wildly unlike all other sites, by the cross-site matrix? That is said, as a warning.

A site's score of a model that others have scored too can be compared with theirs; one of its own model cannot, since a
model does best on the data that it was trained on. Where sites have different data, honest scores differ: in rounds of
training with a Dirichlet partition (alpha 0.3) over 3, 5 or 10 sites by up to 0.57 from the median of the
others. The limits here are beyond that.
"""

from __future__ import annotations

from statistics import median

from bundle.report.model import Report
from bundle.report.wording import model_name, number
from custom.metric_ranges import limits

FEWEST_OTHERS = 2  # sites that scored the model too
FURTHEST = 0.6  # from the median of the others
TIMES_RANGE = 3.0  # of the others


def doubtful_scores(report: Report) -> list[str]:
    """A sentence for each site with such a score, on the one that is furthest from the others'."""
    found: dict[str, tuple[float, str]] = {}
    for model, sites in report.cross_site.items():
        for metric in sorted({name for metrics in sites.values() for name in metrics}):
            if limits(metric) == (0.0, 1.0):
                scores = {
                    site: metrics[metric] for site, metrics in sites.items() if metric in metrics and site != model
                }
                for site, score in scores.items():
                    others = [value for name, value in scores.items() if name != site]
                    away = _distance(score, others)
                    if away > found.get(site, (0.0, ""))[0]:
                        found[site] = away, _sentence(site, model_name(report, model), metric, score, others)
    return [sentence for _, (_, sentence) in sorted(found.items())]


def _distance(score: float, others: list[float]) -> float:
    """From the median of the others, if it is wild; else 0."""
    if len(others) < FEWEST_OTHERS:
        return 0.0
    away = abs(score - median(others))
    return away if away > max(FURTHEST, TIMES_RANGE * (max(others) - min(others))) else 0.0


def _sentence(site: str, model: str, metric: str, score: float, others: list[float]) -> str:
    return (
        f"{site} scores a model ({model}) at {metric} {number(score)}, the other sites at {number(min(others))} to "
        f"{number(max(others))}: its data are of another kind, or its scores are wrong"
    )
