# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How well a global model serves writers that no training saw, before and after each has made it its own.

Read from the `evaluated` scores of training rounds and from the event `personalized` (controllers/personalize.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bundle.report.phases import Phases
from custom.events import Personalized, RoundEnded

WHEN = ("initial", "personalized")


@dataclass(frozen=True)
class Point:
    """One global model on the held-out writers: means in which every writer counts alike.

    Attributes:
        task: whose rounds trained the model last.
        round: rounds of training behind it, of all tasks together; 0 is the initial model.
        writers: how many were scored.
        initial_accuracy: of the model as it is.
        personalized_accuracy: of what each writer made of it.
        initial_loss: None if a site did not report it, or it was not finite.
        personalized_loss: likewise.
    """

    task: str
    round: int
    writers: int
    initial_accuracy: float
    personalized_accuracy: float
    initial_loss: float | None = None
    personalized_loss: float | None = None


@dataclass(frozen=True)
class Writers:
    """What personalising came to.

    Attributes:
        curve: the models that were scored, in the order of training.
        result: the event `personalized` without its time; its `sites` and `summary` are empty until it has come.
    """

    curve: list[Point]
    result: dict[str, Any]

    @property
    def target(self) -> float | None:
        """The accuracy whose reaching is of interest, if any is."""
        value: float | None = self.result["target_accuracy"]
        return value

    def rounds_to_target(self, when: str) -> int | None:
        """Rounds behind the first model whose `initial` or `personalized` mean is at least the target, or None."""
        reached = [p.round for p in self.curve if self.target is not None and accuracy(p, when) >= self.target]
        return reached[0] if reached else None

    def gains(self) -> list[float]:
        """What each writer's accuracy gained by personalising, of all sites."""
        gains: list[float] = []
        for row in self.result["sites"].values():
            pairs = zip(row.get("initial_accuracy", []), row.get("personalized_accuracy", []), strict=False)
            gains += [after - before for before, after in pairs]
        return [gain for gain in gains if math.isfinite(gain)]

    def to_json(self) -> dict[str, Any]:
        """The object under `personalization` of `report --json`."""
        to_target = {when: self.rounds_to_target(when) for when in WHEN} if self.target is not None else None
        return {**self.result, "curve": [asdict(point) for point in self.curve], "rounds_to_target": to_target}


def accuracy(point: Point, when: str) -> float:
    """The mean accuracy, `initial` or `personalized`."""
    return point.initial_accuracy if when == "initial" else point.personalized_accuracy


def read_writers(
    rounds: Sequence[RoundEnded], results: Sequence[Personalized], samples: dict[str, Any], behind: int = 0
) -> Writers | None:
    """From the events `round`, in their order, and `personalized`; None for a job that has no held-out writers.

    Args:
        rounds: each (task, round) once.
        results: the last one counts.
        samples: by site, as in the event `initialized`.
        behind: rounds of the job that this one continues.
    """
    curve: list[Point] = []
    phases = Phases(behind)
    for event in rounds:
        task = phases.task or event.task  # the sites received what the round before this one made
        if received := evaluated(event, phases.position(event) - 1, task):
            curve.append(received)
    result: dict[str, Any] = {"rounds": {}, "target_accuracy": None, "sites": {}, "failed": {}, "summary": {}}
    for personalized in results[-1:]:
        result |= personalized.given()
    if summary := result["summary"]:
        means = {f"{when}_{metric}": summary[when][metric]["mean"] for when in WHEN for metric in ("accuracy", "loss")}
        behind = sum(result["rounds"].values())
        curve.append(Point(phases.task or "", behind, summary["writers"], **means))
    known = any("held_out_writers" in counts for counts in samples.values())
    return Writers(curve, result) if curve or results or known else None


def evaluated(event: RoundEnded, behind: int, task: str) -> Point | None:
    """The model that the sites received in a round, as they scored it; None if they did not.

    Args:
        event: the round.
        behind: rounds of training behind that model.
        task: whose rounds trained it.
    """
    scores = [facts.evaluated for facts in event.sites.values()]
    needed = {"writers", "initial_accuracy", "personalized_accuracy"}
    scores = [score for score in scores if needed <= score.keys() and score["writers"] > 0]
    if not scores:
        return None
    writers = sum(score["writers"] for score in scores)

    def mean(name: str) -> float | None:
        if any(name not in score for score in scores):
            return None
        return math.fsum(score["writers"] * score[name] for score in scores) / writers

    losses = {f"{when}_loss": mean(f"{when}_loss") for when in WHEN}
    before, after = (mean(f"{when}_accuracy") or 0.0 for when in WHEN)
    return Point(task, behind, int(writers), before, after, **losses)
