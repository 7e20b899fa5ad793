# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which sites stand out in a job, from its events: the same evidence as at the server, see `custom.checks.outliers`."""

from __future__ import annotations

from collections.abc import Sequence

from custom.checks.outliers import LARGE, Outlier, Outliers
from custom.events import Event, RoundEnded, SiteError

NOT_FINITE = "[update-not-finite]"  # the end of a reason


def add_round(outliers: Outliers, event: RoundEnded) -> list[Outlier]:
    """The outliers that this round made plain."""
    task = "" if event.task == "train" else f"{event.task} "
    facts = {site: site_round.update for site, site_round in event.sites.items() if site_round.update}
    return outliers.add(f"{task}round {event.round}", facts)


def find_outliers(events: Sequence[Event]) -> list[Outlier]:
    """Of all rounds, in the order in which they were found."""
    outliers = Outliers()
    for event in events:
        if isinstance(event, RoundEnded):
            add_round(outliers, event)
    return list(outliers.found.values())


def broken_together(events: Sequence[Event]) -> list[str]:
    """Where several sites' updates were not finite in one round, the model that they received was broken: by whom?"""
    found: list[str] = []
    last: RoundEnded | None = None
    broken: set[str] = set()
    for event in [*events, RoundEnded(event="round", round=1)]:
        if isinstance(event, SiteError) and event.reason.endswith(NOT_FINITE):
            broken.add(event.site)
        elif isinstance(event, RoundEnded):
            if len(broken) > 1 and last is not None and (sentence := _suspect(last, broken)):
                found.append(sentence)
            last, broken = event, set()
    return found


def _suspect(before: RoundEnded, broken: set[str]) -> str:
    ratios = {site: facts.update.get("norm_ratio", 0.0) for site, facts in before.sites.items()}
    site = max(ratios, key=lambda name: ratios[name], default="")
    if not site or ratios[site] <= LARGE:
        return ""
    return (
        f"the updates of {', '.join(sorted(broken))} were not finite in one round, so the model that they received is "
        f"the likely cause; the largest update in it was that of {site}, {ratios[site]:.3g} x the others' median in "
        f"round {before.round}"
    )
