# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What personal models gained at each site, and what they lost elsewhere; the same for the terminal and the page.

`Report.personalization` is the object of fine_tune.json (controllers/fine_tune.py) and `elsewhere`.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

from bundle.report.model import Report
from bundle.report.wording import number, points
from custom.events import FineTuned

METRIC = "test_accuracy"
KINDS = {"local_only": "local only", "global": "global", "personal": "personal"}
ALL_SITES = "all sites"
STARTED_FROM = {"best": "SRV_best_FL_global_model.pt", "final": "SRV_FL_global_model.pt"}


def latest(events: list[FineTuned]) -> dict[str, Any] | None:
    """The last `fine_tuned` event as fine_tune.json has it, or None."""
    if not events:
        return None
    empty: dict[str, Any] = {"sites": {}, "failed": {}, "summary": {}}
    return empty | events[-1].given()


def elsewhere(report: Report) -> dict[str, Any]:
    """How the personal models do on the data of the OTHER sites, where the cross-site matrix has them.

    Returns:
        `{"elsewhere": {"personal": float, "global": float}}`: mean test accuracy over all pairs of a personal model and
        another site, weighted by that site's test samples; `global` is the model that fine-tuning started from, over
        the same pairs. Empty if no personal model was shared.
    """
    personalization = report.personalization or {}
    tuned = personalization.get("sites", {})
    start = report.cross_site.get(STARTED_FROM.get(personalization.get("start_from", ""), ""), {})
    pairs = []
    for model in tuned:  # a site that failed may have sent the personal model of an earlier job
        for site, scores in report.cross_site.get(model, {}).items():
            weight = tuned.get(site, {}).get("test_samples") or report.samples.get(site, {}).get("test", 0)
            if site != model and METRIC in scores and METRIC in start.get(site, {}):
                pairs.append((weight, scores[METRIC], start[site][METRIC]))
    total = sum(weight for weight, _, _ in pairs)
    if not total:
        return {}
    personal, before = (math.fsum(pair[0] * pair[column] for pair in pairs) / total for column in (1, 2))
    return {"elsewhere": {"personal": personal, "global": before}}


def accuracy(row: dict[str, Any], kind: str) -> float | None:
    """Test accuracy of one kind of model at the site of `row`, if it has one."""
    value: float | None = row.get(kind, {}).get(METRIC)
    return value


def kinds(personalization: dict[str, Any]) -> list[str]:
    """The kinds of model that any site has, in the order to show them."""
    sites = personalization["sites"].values()
    return [kind for kind in KINDS if kind != "local_only" or any(accuracy(row, kind) is not None for row in sites)]


def title(personalization: dict[str, Any]) -> str:
    """What the numbers of `table_rows` are."""
    rounds = personalization.get("rounds")
    model = f"{personalization.get('start_from')} global model" + (f" of {rounds} rounds" if rounds is not None else "")
    return f"{METRIC} at each site on its own data, fine-tuned from the {model}"


def table_rows(personalization: dict[str, Any]) -> list[list[str]]:
    """A header, a row a site, and what they come to; the last two rows are the worst value and its site."""
    sites, shown = personalization["sites"], kinds(personalization)
    rows = [["site", *(KINDS[kind] for kind in shown), "gain (points)", "best epoch", "samples"]]
    gains = {site: change for site, row in sites.items() if (change := _gain(row)) is not None}
    for site, row in sites.items():
        epochs = f"{row.get('best_epoch', '?')} of {row.get('epochs', '?')}"
        values = [number(accuracy(row, kind)) for kind in shown]
        rows.append(
            [site, *values, points(gains[site]) if site in gains else "-", epochs, str(row.get("samples", "-"))]
        )
    for site in personalization["failed"]:  # the page prints a cell that ends so in red
        rows.append([f"{site} failed", *("-" for _ in shown), "-", "-", "-"])
    return rows + _summary_rows(personalization, shown, gains)


def _gain(row: dict[str, Any]) -> float | None:
    before, after = accuracy(row, "global"), accuracy(row, "personal")
    return None if before is None or after is None else after - before


def _summary_rows(personalization: dict[str, Any], shown: list[str], gains: dict[str, float]) -> list[list[str]]:
    summary = personalization["summary"]
    if not summary or not gains:
        return []
    columns = [summary.get(kind, {}) for kind in shown]  # no local_only if a site lacks it
    mean, std, worst = ([number(column.get(name)) for column in columns] for name in ("mean", "std", "worst"))
    lowest = min(gains, key=lambda site: gains[site])
    spread = statistics.stdev(gains.values()) if len(gains) > 1 else 0.0
    samples = sum(row.get("samples", 0) for row in personalization["sites"].values())
    gain = summary["personal"]["mean"] - summary["global"]["mean"]
    return [
        [ALL_SITES, *mean, points(gain), "", str(samples)],
        ["+- over sites", *std, f"{100 * spread:.1f}", "", ""],
        ["worst site", *worst, points(gains[lowest]), "", ""],
        ["", *(str(column.get("worst_site", "")) for column in columns), lowest, "", ""],
    ]


def notes(personalization: dict[str, Any]) -> list[str]:
    """Sentences below the table: whom it harmed, what was forgotten, and who has no personal model."""
    found = []
    summary, count = personalization["summary"], len(personalization["sites"])
    if "harmed_on_test" in summary:
        test, validation = (summary[f"harmed_on_{split}"] for split in ("test", "validation"))
        found.append(
            f"harmed by personalising: {100 * test:.0f} % ({round(test * count)} of {count} sites) on test, by more "
            f"than a point; {100 * validation:.0f} % ({round(validation * count)} of {count}) on validation"
        )
    if scores := personalization.get("elsewhere"):
        personal, before = scores["personal"], scores["global"]
        found.append(
            f"on the other sites' data: personal {100 * personal:.1f} %, global {100 * before:.1f} % "
            f"({points(personal - before)} points)"
        )
    found += [f"{site} has no personal model: {reason}" for site, reason in personalization["failed"].items()]
    return found
