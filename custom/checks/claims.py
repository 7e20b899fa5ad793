# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Do the scores and sample counts of a reply have values that they can have, and that fit what the site said before?

Before training a site says how many samples it has, by split (`custom.keys.SAMPLES`, at the server those of all sites).
It is bound by that afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from custom.checks.update import Origin, UpdateRejected, check_metrics, check_weight
from custom.metric_ranges import MOST_SAMPLES, finite
from custom.metrics import WRITERS
from custom.printable import shown

Facts = Mapping[str, Mapping[str, Any]]  # number of samples by site and split
TRAINING, HELD_OUT = "training_writers", "held_out_writers"  # of these counts


def told(facts: Facts | None, site: str, count: str, otherwise: float) -> float:
    """A count that the site sent before training; of one that did not, the largest that any sent, or `otherwise`."""
    known = {name: finite(counts.get(count)) for name, counts in (facts or {}).items()}
    counts = {name: value for name, value in known.items() if value is not None}
    return counts.get(site, max(counts.values(), default=otherwise))


def check_scores(metrics: Any, samples: Any, origin: Origin, facts: Facts | None = None) -> None:
    """Of a model that a site scored, with the number of its training samples as weight.

    Args:
        metrics: as in `custom.metrics.fault`.
        samples: the weight.
        origin: whose reply it is.
        facts: what the sites said before training, if they did.

    Raises:
        UpdateRejected: its reason is `metrics` or `weight`.
    """
    check_metrics(metrics, origin)
    check_weight(samples, origin, max_weight=told(facts, origin.site, "train", MOST_SAMPLES))


def check_writers(metrics: Any, count: str, origin: Origin, facts: Facts | None) -> None:
    """A site trains or scores no more writers than it said that it has.

    Args:
        metrics: that have passed `check_metrics`; those without `writers` pass.
        count: of the site's facts: which writers they are.
        origin: whose they are.
        facts: what the sites said before training, if they did.

    Raises:
        UpdateRejected: its reason is `metrics`.
    """
    named = metrics if isinstance(metrics, dict) else {}
    most, total = told(facts, origin.site, count, MOST_SAMPLES), sum(float(named.get(name, 0)) for name in WRITERS)
    if total > most:
        expected = f"at most {most:g}, as this site has told"
        raise UpdateRejected("metrics", origin, key="writers", expected=expected, got=shown(total))
