# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How far a job is, and about how long it will take: from its events, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bundle.live import PHASES, RECENT_ROUNDS
from bundle.report.model import Report
from custom.events import Event, JobEnded, Workflow, of_kind
from dashboard.system import Job

WAITING = {
    "SUBMITTED": "waiting for FLARE to start it",
    "APPROVED": "waiting for FLARE to start it",
    "DISPATCHED": "FLARE is sending it to the sites",
    "RUNNING": "starting at the sites",
}


@dataclass(frozen=True)
class Progress:
    """Of a job that has not ended.

    Attributes:
        done: rounds that are over, with those of the job that it continues.
        planned: rounds in all; 0 if that is not known.
        phase: what is going on, in words.
        left_s: about how many seconds of training are left; None if that is not known.
    """

    done: int
    planned: int
    phase: str
    left_s: float | None

    @property
    def share(self) -> float | None:
        """Of the rounds that are over, 0 to 1; None if it is not known."""
        return min(self.done / self.planned, 1.0) if self.planned else None

    @property
    def text(self) -> str:
        """`3 of 10`: the round that is going on."""
        if not self.planned:
            return f"{self.done} done" if self.done else "-"
        if self.done >= self.planned:
            return f"all {self.planned} done"
        return f"{self.done + 1} of {self.planned}"


def progress(job: Job, report: Report, events: Sequence[Event], planned: int = 0) -> Progress:
    """Of a running job.

    Args:
        job: as FLARE has it.
        report: of `events`.
        events: of its progress.jsonl so far.
        planned: rounds of all its tasks according to its settings; its events know only those of tasks that have begun.
    """
    started = [event.workflow for event in of_kind(events, Workflow) if event.event == "workflow_started"]
    phase = PHASES.get(started[-1], started[-1]) if started else WAITING.get(job.status, job.status.lower())
    if of_kind(events[-1:], JobEnded):
        phase = "FLARE is collecting the result"
    return Progress(report.rounds_done, max(report.num_rounds, planned), phase, _left(report))


def _left(report: Report) -> float | None:
    """By the rounds of the task that is going on: another task takes another time."""
    if not report.rounds or not report.num_rounds:
        return None
    last = report.rounds[-1]
    recent = [row.seconds for row in report.rounds if row.task == last.task][-RECENT_ROUNDS:]
    return max(report.num_rounds - last.position, 0) * sum(recent) / len(recent)
