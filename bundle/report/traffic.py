# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Bytes as sent beside those of dense exchange, by round and site; the same for the terminal and the page.

Where the two are alike, as in every job without sparse exchange, there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bundle.report.model import Report
from bundle.report.wording import ALIKE, against_dense, human_bytes, thinned
from custom.events import BYTES

TITLE = "bytes by round and site: as sent, and what dense exchange would have cost"
ALL_SITES = "all sites"
MOST_SITES = 6
WAYS = ("up", "down")
Counts = Mapping[str, int]


def compared(report: Report) -> bool:
    """Would dense exchange have cost something else, as far as that is known?"""
    return any(_differs(report, way) for way in WAYS)


def _differs(report: Report, way: str) -> bool:
    return against_dense(*_totals(report, way)) not in ("", ALIKE)


def _totals(report: Report, way: str) -> tuple[int | None, int | None]:
    return report.total_bytes(f"{way}load_bytes"), report.total_bytes(f"dense_{way}load_bytes")


def dense_bytes(report: Report) -> int:
    """What dense exchange would have cost, up and down."""
    return sum(_totals(report, way)[1] or 0 for way in WAYS)


def summary(report: Report) -> str:
    """One line on all rounds and sites, of a report that is `compared`."""
    parts = []
    for way, exchange in zip(WAYS, ("dense exchange", ""), strict=True):  # it is named once
        sent, dense = _totals(report, way)
        times = against_dense(sent, dense)
        than = f" {'than' if times.endswith('less') else 'as'} {exchange}" if exchange else ""
        beside = f" ({human_bytes(dense or 0)})" if times != ALIKE else ""
        parts.append(f"{way} {human_bytes(sent or 0)}, {times}{than}{beside}")
    return f"sent {'; '.join(parts)}"


def table_rows(report: Report, most_rows: int) -> list[list[str]]:
    """A header, about `most_rows` rows of a round and site each, and the sums over all rounds."""
    columns = {}
    for way in WAYS:
        columns[way] = f"{way}load_bytes"
        if _differs(report, way):
            columns[f"dense {way}"] = f"dense_{way}load_bytes"
    groups = []
    for row in thinned(report.rounds, _most_rounds(report, most_rows)):
        task = f"{row.task} " if len(report.tasks) > 1 else ""
        named = {site: f"{site} failed" if site in row.failed else site for site in _few(row.site_bytes)}
        groups.append((f"{task}{row.round}/{row.num_rounds}", {named[site]: row.site_bytes[site] for site in named}))
    sums = {site: _sum([row.site_bytes.get(site, {}) for row in report.rounds]) for site in _sites(report)}
    groups.append(("all", {site: sums[site] for site in _few(sums)} | {ALL_SITES: _sum(list(sums.values()))}))
    return [["round", "site", *columns], *(row for group in groups for row in _rows(*group, list(columns.values())))]


def notes(report: Report, most_rows: int) -> list[str]:
    """What `table_rows` leaves out."""
    hidden = len(report.rounds) - _most_rounds(report, most_rows)
    found = [f"{hidden} of {len(report.rounds)} rounds are left out here; --json has them all"] if hidden > 0 else []
    if (sites := len(_sites(report))) > MOST_SITES:
        found.append(f"of {sites} sites, those with the fewest and with the most bytes")
    return found


def _sites(report: Report) -> list[str]:
    return sorted({site for row in report.rounds for site in row.site_bytes})


def _most_rounds(report: Report, most_rows: int) -> int:
    sites = len(_sites(report))
    return max(2, most_rows // (2 if sites > MOST_SITES else max(sites, 1)))


def _few(sites: Mapping[str, Counts]) -> list[str]:
    """All sites, or of many those with the fewest and with the most bytes."""
    names = sorted(sites, key=lambda site: sites[site]["upload_bytes"] + sites[site]["download_bytes"])
    return sorted(sites) if len(sites) <= MOST_SITES else [names[0], names[-1]]


def _sum(counts: Sequence[Counts]) -> dict[str, int]:
    return {name: sum(count.get(name, 0) for count in counts) for name in BYTES}


def _rows(label: str, sites: Mapping[str, Counts], names: Sequence[str]) -> list[list[str]]:
    return [
        ["" if place else label, site, *(human_bytes(counts[name]) for name in names)]
        for place, (site, counts) in enumerate(sites.items())
    ]
