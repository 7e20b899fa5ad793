# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which sites stand out, from how their updates stand among the others', round after round.

Evidence is added up by Page's cumulative sum (CUSUM; Page 1954, https://doi.org/10.1093/biomet/41.1-2.100): a round
that is odd beyond what honest sites do adds to a site's sum, any other takes from it, and the sum never falls below 0.
So a single gross update is enough, many slightly odd ones are too, and an odd round now and then is not. The constants
come from honest and attacked federations (`benchmarks/malicious_site.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from custom.checks.round import MOST_SAMPLES

LARGE = 2.0  # times the others' median: the norm of a site of their size that takes nothing from its sum
AWAY = 0.4  # how far a cosine lies below the median of the others' where it takes nothing from its sum, at most
AGREE = 0.2  # the same where the others agree with each other, at least
FARTHER = 0.5  # by how much farther away the update of a site may lie that has e times their samples
LARGER = 0.3  # for m times their samples it may be m**(1 + 0.3 log m) times as large: eleven times for five times
RELIEF = 0.4  # what a round takes from a sum at most
LIMIT = math.log(4)  # of both sums together: one norm of 8 times the others' median reaches it, or two of 4 times


@dataclass
class Outlier:
    """A site to look at.

    Attributes:
        site: its name.
        kind: `norm`, `direction` or `samples`.
        first: the round in which it was first plain, such as `round 3`.
        value: the most extreme that was seen: times the others' median norm, the cosine, or times their samples.
        when: the round of that.
    """

    site: str
    kind: str
    first: str
    value: float
    when: str

    @property
    def sentence(self) -> str:
        """What was seen, and what to look at."""
        if self.kind == "norm":
            seen = f"its update was {self.value:.3g} x as large as the others' median in {self.when}"
            return f"{self.site}: {seen}; look at its code, its learning rate and its data"
        if self.kind == "direction":
            seen = f"its updates point elsewhere than those of the others (cosine {self.value:.2f} in {self.when})"
            return f"{self.site}: {seen}; look at its code and its labels"
        seen = f"it says that it has {self.value:.3g} x as many samples as the others' median"
        return f"{self.site}: {seen}; max_samples_ratio bounds what that may count"


class Outliers:
    """Collects evidence over the rounds of a job; what was found stays found.

    Attributes:
        found: all outliers so far, by site and kind.
        standing_out: the sites whose norm and direction are too much now. Rounds like those of the others clear a site.
    """

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Outlier] = {}
        self.standing_out: set[str] = set()
        self._sums: dict[tuple[str, str], float] = {}
        self._extremes: dict[tuple[str, str], tuple[float, float, str]] = {}  # evidence, value and round

    def add(self, label: str, facts: Mapping[str, Mapping[str, float]]) -> list[Outlier]:
        """One round.

        Args:
            label: what to call the round, such as `round 3`.
            facts: by site, what is known of `custom.checks.round.Standing`.

        Returns:
            The outliers that this round made plain.
        """
        new: list[Outlier] = []
        for site, standing in sorted(facts.items()):
            evidence = _evidence(
                standing, [other["cosine"] for name, other in facts.items() if name != site and "cosine" in other]
            )
            for kind, (value, odd) in evidence.items():
                self._sums[site, kind] = max(0.0, self._sums.get((site, kind), 0.0) + max(odd, -RELIEF))
                if odd > self._extremes.get((site, kind), (-math.inf,))[0]:
                    self._extremes[site, kind] = (odd, value, label)
            sums = {kind: self._sums.get((site, kind), 0.0) for kind in ("norm", "direction")}
            kinds = [max(sums, key=lambda kind: sums[kind])] if sum(sums.values()) > LIMIT else []
            self.standing_out = self.standing_out | {site} if kinds else self.standing_out - {site}
            if evidence.get("samples", (0.0, 0.0))[1] > 0:
                kinds.append("samples")
            for kind in kinds:
                if (site, kind) not in self.found:
                    self.found[site, kind] = Outlier(site, kind, label, 0.0, "")
                    new.append(self.found[site, kind])
        for key, outlier in self.found.items():
            _, outlier.value, outlier.when = self._extremes[key]
        return new


def _evidence(standing: Mapping[str, float], others: Sequence[float]) -> dict[str, tuple[float, float]]:
    """(value, how much odder it is than honest sites are) of each fact that is known; `others` are their cosines."""
    found = {}
    samples = standing.get("samples_ratio", 1.0)
    more = math.log(samples) if 1 < samples <= MOST_SAMPLES else 0.0  # a number that stands out excuses nothing
    if "samples_ratio" in standing and samples > 0:
        found["samples"] = samples, math.log(samples) - math.log(MOST_SAMPLES)
    if (ratio := standing.get("norm_ratio", 0.0)) > 0:
        found["norm"] = ratio, math.log(ratio) - math.log(LARGE) - more * (1 + LARGER * more)
    if "cosine" in standing and others:
        middle = median(others)
        away = min(max(AGREE, 2 * (middle - min(others))), AWAY) + FARTHER * more
        found["direction"] = standing["cosine"], middle - standing["cosine"] - away
    return found
