# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What an event says, in one line or a part of it; see `bundle.live`."""

from __future__ import annotations

from collections.abc import Mapping

from bundle.report.wording import origin, points
from bundle.report.writers import evaluated
from custom.events import Continued, FineTuned, Initialized, Nothing, Personalized, RoundEnded
from custom.metrics import weighted_mean
from custom.printable import decimals

MOST_SITES = 6  # that a line names


def initialized_line(event: Initialized) -> str:
    """How the job began, and on what data."""
    data = event.dataset or {}
    train, writers, held_out = (
        sum(sizes.get(name, 0) for sizes in event.samples.values())
        for name in ("train", "training_writers", "held_out_writers")
    )
    kinds = {"embedded": "data set", "encoder_embedded": "encoder"}
    embedded = " and ".join(kind for key, kind in kinds.items() if data.get(key))
    return (
        f"initial model: {event.method}"
        + (f" ({event.source})" if event.source else "")
        + f"; data: {data.get('dataset')}, {train} training samples"
        + (f" of {writers} writers, {held_out} more held out" if writers else "")
        + (f"  (EMBEDDED {embedded}, for trying things out)" if embedded else "")
    )


def fine_tuned_line(event: FineTuned) -> str:
    """What the sites' own models gained."""
    scores = ""
    if not isinstance(event.summary, Nothing):
        before, after = event.summary.global_.mean, event.summary.personal.mean
        scores = f": test_accuracy {decimals(before, 3)} -> {decimals(after, 3)} ({points(after - before)} points)"
    return f"personal models of {len(event.sites)} sites{scores}{failed_part(event.failed)}"


def personalized_line(event: Personalized) -> str:
    """What held-out writers gained."""
    summary = event.summary
    if isinstance(summary, Nothing):
        return f"no held-out writer was scored{failed_part(event.failed)}"
    before, after = summary.initial.accuracy.mean, summary.personalized.accuracy.mean
    return (
        f"{summary.writers} held-out writers: accuracy {decimals(before, 3)} -> {decimals(after, 3)} personalised, "
        f"gain {points(summary.gain.mean)} +- {100 * summary.gain.standard_error:.1f} points{failed_part(event.failed)}"
    )


def continued_line(event: Continued) -> str:
    """Which job it goes on from."""
    return f"continues {origin(event.given())}"


def held_out_line(event: RoundEnded, behind: int) -> str:
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


def writers_part(event: RoundEnded) -> str:
    """Of a round of writers: how many trained, and their mean loss; empty for any other round."""
    train = {site: facts.train for site, facts in event.sites.items()}
    counts = [metrics["writers"] for metrics in train.values() if "writers" in metrics]
    loss = weighted_mean(train, event.samples()).get("train_loss")
    found = f"  {sum(counts):.0f} writers" + ("" if loss is None else f"  train_loss {decimals(loss, 3)}")
    return found if counts else ""


def losses_part(event: RoundEnded) -> str:
    """The training loss at the first few sites."""
    trained = [(site, facts.train.get("train_loss")) for site, facts in sorted(event.sites.items())]
    losses = "  ".join(f"{site} {decimals(loss, 3)}" for site, loss in trained[:MOST_SITES] if loss is not None)
    return f"  train_loss {losses}" if losses else ""


def failed_part(failed: Mapping[str, str]) -> str:
    """The sites that failed."""
    return "".join(f"  {site} FAILED" for site in sorted(failed))
