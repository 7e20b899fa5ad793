# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Lines that show a job's progress while it runs."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from bundle.live_lines import (
    continued_line,
    failed_part,
    fine_tuned_line,
    held_out_line,
    initialized_line,
    losses_part,
    personalized_line,
    writers_part,
)
from bundle.report.outliers import add_round
from bundle.report.phases import Phases, rounds_behind
from bundle.report.reading import received_score
from bundle.report.wording import human_bytes, human_seconds, left_out_lines
from custom.checks.outliers import Outliers
from custom.events import (
    Continued,
    Event,
    FineTuned,
    Initialized,
    JobEnded,
    JobStarted,
    NotUnderstood,
    Personalized,
    Remark,
    RoundEnded,
    SiteError,
    Validated,
    Workflow,
    unread,
)
from custom.metrics import weighted_mean
from custom.printable import decimals
from custom.progress import FILE_NAME

PHASES = {
    "pre_train": "comparing the sites' models and data",
    "scatter_and_gather": "training",
    "fed_avg": "training on the sites' writers",
    "meta_train": "training a model that writers can make their own",
    "personalize": "held-out writers make the global model their own",
    "closing_validation": "scoring the last global model",
    "fine_tune": "every site makes the global model its own",
    "cross_site_validate": "scoring every model at every site",
}
HEARTBEAT_S = 1.0  # on a terminal, where it is one line that changes
MOST_LETTERS = 160  # of a problem; the report has it in full
RECENT_ROUNDS = 3  # the first round is slower than the others
LOG_HEARTBEAT_S = 10.0  # elsewhere, where each is a new line


class Live:
    """Prints an event as a line, and a sign of life in between.

    Args:
        out: where to; stdout if None.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.phase = "FLARE is starting its server and the sites"
        self.started = self._last_output = time.monotonic()
        self._seconds: list[float] = []
        self._last_score: float | None = None
        self._phases = Phases()
        self._outliers = Outliers()
        self._open_line = False
        self._told: set[str] = set()

    def show(self, event: Event) -> None:
        """Prints what `event` means; an event that says nothing to a user prints nothing."""
        match event:
            case Workflow(event="workflow_started"):
                self.phase = PHASES.get(event.workflow, event.workflow)
                self.line(f"{event.workflow}: {self.phase}")
            case JobStarted():
                self.line(f"job {event.job} started at {', '.join(sorted(event.sites))}")
            case Initialized():
                self.line(initialized_line(event))
                for line in left_out_lines(event.left_out):
                    self._problem(f"left out of the data: {line}")
            case Continued():
                self._phases = Phases(rounds_behind(event))
                self.line(continued_line(event))
            case FineTuned():
                self.line(fine_tuned_line(event))
            case Personalized():
                self.line(personalized_line(event))
            case RoundEnded():
                self._round(event)
                for outlier in add_round(self._outliers, event):
                    self._problem(outlier.sentence)
            case Validated():
                self._score(weighted_mean(event.sites, event.samples), f"after round {event.round}")
            case SiteError():
                self._problem(f"{event.site} at {event.task}: {event.reason}")
            case Remark():
                self._problem(event.reason)
            case NotUnderstood():
                self._problem(unread([event], FILE_NAME))
            case JobEnded():
                self.phase = "the job has ended, FLARE is stopping"

    def heartbeat(self) -> None:
        """A sign of life, if nothing was printed for a while."""
        now = time.monotonic()
        elapsed = human_seconds(round(now - self.started))
        if self.out.isatty():
            if now - self._last_output >= HEARTBEAT_S:
                room = shutil.get_terminal_size().columns - len(f"  ...  ({elapsed})") - 1
                self._write(f"\r\x1b[K  ... {self.phase[: max(room, 0)]} ({elapsed})")  # a longer one would wrap
                self._open_line = True
        elif now - self._last_output >= LOG_HEARTBEAT_S:
            self.line(f"... {self.phase}")

    def line(self, text: str) -> None:
        """One line, with the seconds since the start."""
        clear = "\r\x1b[K" if self._open_line else ""
        self._open_line = False
        self._write(f"{clear}{time.monotonic() - self.started:6.1f} s  {text}\n")

    def _problem(self, text: str) -> None:
        """Once, as where a site without test samples is sent every model."""
        if text in self._told:
            return
        self._told.add(text)
        self.line("! " + (text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} ... (in full below)"))

    def _write(self, text: str) -> None:
        self._last_output = time.monotonic()
        self.out.write(text)
        self.out.flush()

    def _round(self, event: RoundEnded) -> None:
        if self._phases.task not in (None, event.task):
            self._seconds = []  # another task takes another time
        behind = self._phases.position(event) - 1
        self._score(received_score(event).aggregate, f"after round {behind}" if behind else "at the start")
        if line := held_out_line(event, behind):
            self.line(line)
        self._seconds.append(event.seconds)
        recent = self._seconds[-RECENT_ROUNDS:]
        left = max(event.num_rounds - event.round, 0) * sum(recent) / len(recent)
        writers = writers_part(event)
        named = bool(writers) or event.task != "train"
        what = f"{event.task} rounds" if named else "training"
        self.line(
            (f"{event.task} " if named else "")
            + f"round {event.round}/{event.num_rounds}  {len(event.sites)} sites{failed_part(event.failed)}"
            + (writers or losses_part(event))
            + f"  up {human_bytes(event.upload_bytes)}  {event.seconds:.1f} s"
            + (f"  about {human_seconds(left)} of {what} left" if left else "")
        )

    def _score(self, metrics: dict[str, float], when: str) -> None:
        names = sorted(metrics, key=lambda name: ("accuracy" not in name, name))
        if not names:
            return
        value = metrics[names[0]]
        change = "" if self._last_score is None else f" ({decimals(value - self._last_score, 3, '+')})"
        self._last_score = value
        self.line(f"global model {when}: {names[0]} {decimals(value, 3)}{change}")
