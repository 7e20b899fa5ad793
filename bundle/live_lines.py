# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What an event says, in one line or a part of it; see `bundle.live`."""

from __future__ import annotations

from collections.abc import Callable

from bundle.events import Event
from bundle.report.wording import origin, points
from bundle.report.writers import WHEN, evaluated
from custom.metrics import weighted_mean
from custom.printable import decimals

MOST_SITES = 6  # that a line names


def _initialized(event: Event) -> str:
    data, samples = event.get("dataset") or {}, (event.get("samples") or {}).values()
    train, writers, held_out = (
        sum(sizes.get(name, 0) for sizes in samples) for name in ("train", "training_writers", "held_out_writers")
    )
    source = event.get("source")
    kinds = {"embedded": "data set", "encoder_embedded": "encoder"}
    embedded = " and ".join(kind for key, kind in kinds.items() if data.get(key))
    return (
        f"initial model: {event.get('method')}"
        + (f" ({source})" if source else "")
        + f"; data: {data.get('dataset')}, {train} training samples"
        + (f" of {writers} writers, {held_out} more held out" if writers else "")
        + (f"  (EMBEDDED {embedded}, for trying things out)" if embedded else "")
    )


def _fine_tuned(event: Event) -> str:
    summary = event.get("summary") or {}
    before, after = (summary.get(kind, {}).get("mean") for kind in ("global", "personal"))
    scores = "" if before is None or after is None else f": test_accuracy {decimals(before, 3)} -> {decimals(after, 3)}"
    gain = f" ({points(after - before)} points)" if scores else ""
    return f"personal models of {len(event.get('sites', {}))} sites{scores}{gain}{failed_part(event)}"


def _personalized(event: Event) -> str:
    summary = event.get("summary")
    if not summary:
        return f"no held-out writer was scored{failed_part(event)}"
    before, after = (summary[when]["accuracy"]["mean"] for when in WHEN)
    gain = summary["gain"]
    return (
        f"{summary['writers']} held-out writers: accuracy {decimals(before, 3)} -> {decimals(after, 3)} personalised, "
        f"gain {points(gain['mean'])} +- {100 * gain['standard_error']:.1f} points{failed_part(event)}"
    )


def _continued(event: Event) -> str:
    return f"continues {origin(event)}"


AS_LINES: dict[str, Callable[[Event], str]] = {
    "initialized": _initialized,
    "continued": _continued,
    "fine_tuned": _fine_tuned,
    "personalized": _personalized,
}


def held_out_line(event: Event, behind: int) -> str:
    """How the model that the sites received in a round serves held-out writers; empty if it was not scored.

    Args:
        event: the round.
        behind: rounds of training behind that model.
    """
    scores = evaluated(event, behind, "")
    if scores is None:
        return ""
    before, after = scores.initial_accuracy, scores.personalized_accuracy
    when = f"after {behind} rounds" if behind else "at the start"
    change = f"{decimals(before, 3)} -> {decimals(after, 3)} personalised ({points(after - before)} points)"
    return f"{scores.writers} held-out writers {when}: accuracy {change}"


def writers_part(event: Event) -> str:
    """Of a round of writers: how many trained, and their mean loss; empty for any other round."""
    sites = event.get("sites", {})
    train = {site: facts.get("train", {}) for site, facts in sites.items()}
    counts = [metrics["writers"] for metrics in train.values() if "writers" in metrics]
    loss = weighted_mean(train, {site: facts.get("samples") for site, facts in sites.items()}).get("train_loss")
    found = f"  {sum(counts):.0f} writers" + ("" if loss is None else f"  train_loss {decimals(loss, 3)}")
    return found if counts else ""


def losses_part(event: Event) -> str:
    """The training loss at the first few sites."""
    sites = sorted(event.get("sites", {}).items())
    trained = [(site, facts.get("train", {}).get("train_loss")) for site, facts in sites]
    losses = "  ".join(f"{site} {decimals(loss, 3)}" for site, loss in trained[:MOST_SITES] if loss is not None)
    return f"  train_loss {losses}" if losses else ""


def failed_part(event: Event) -> str:
    """The sites that failed."""
    return "".join(f"  {site} FAILED" for site in sorted(event.get("failed") or {}))
