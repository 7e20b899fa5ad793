# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How far a job is that has not ended."""

from __future__ import annotations

import time

from nicegui import ui

from bundle.report.model import Report
from bundle.report.wording import human_bytes, human_seconds
from dashboard.pages.parts import Text, attributes, box, card
from dashboard.progress import Progress, progress
from dashboard.system import Job, Snapshot
from dashboard.web import Web
from dashboard.words import elapsed, is_over

FACTS = ("Round", "Elapsed", "Left", "Sites", "Up", "Down")
ROUNDS = "num_rounds"  # the argument of workflows that says how many are planned


class ProgressCard:
    """A bar and a few numbers, which change in place."""

    def __init__(self, web: Web, job_id: str) -> None:
        self._web, self._job_id = web, job_id
        with attributes(card(), data_testid="progress"):
            with box("card-head"):
                self._phase = attributes(Text("strong"), data_testid="phase", role="status")
                self._percent = Text("span", "", "number")
            self._bar = ui.linear_progress(0, show_value=False, size="10px", color=None).classes("bar")
            attributes(self._bar, aria_label="Rounds that are over", data_testid="bar")
            self._values: dict[str, Text] = {}
            with box("facts", "dl"):
                for label in FACTS:
                    with box("fact"):
                        Text("dt", label)
                        with box("", "dd"):
                            self._values[label] = attributes(Text("span"), data_testid=f"fact-{label.lower()}")

    def update(self, snapshot: Snapshot) -> None:
        """Shows the newest numbers; nothing once the job has ended, for then the card is gone."""
        job = snapshot.job(self._job_id)
        if job is None or is_over(job) or self._bar.is_deleted:
            return
        reading = self._web.reports.latest(self._job_id)
        report = (reading.report if reading else None) or Report()
        now = progress(job, report, snapshot.events.get(self._job_id, ()), self._planned(job))
        _set(self._phase, now.phase[:1].upper() + now.phase[1:])
        _set(self._percent, "" if now.share is None else f"{100 * now.share:.0f} %")
        if self._bar.value != (now.share or 0.0):
            self._bar.value = now.share or 0.0
        for label, text in self._texts(job, report, now, snapshot).items():
            _set(self._values[label], text)

    def _planned(self, job: Job) -> int:
        """By its settings; of a job that was not launched here, the defaults say nothing."""
        form = self._web.form(job.name) if job.launched_here else None
        fields = [field for field in form.fields if field.key.rpartition(".")[2] == ROUNDS] if form else []
        planned = [job.settings.get(field.key, field.default) for field in fields]
        return sum(planned) if all(isinstance(rounds, int) for rounds in planned) else 0

    def _texts(self, job: Job, report: Report, now: Progress, snapshot: Snapshot) -> dict[str, str]:
        up, down = (human_bytes(report.total_bytes(name) or 0) for name in ("upload_bytes", "download_bytes"))
        sites = report.site_names or list(job.sites)
        left = "-" if not now.left_s else "a few seconds" if now.left_s < 10 else f"about {human_seconds(now.left_s)}"
        texts = (now.text, elapsed(job, snapshot, time.time()), left, str(len(sites) or "-"), up, down)
        return dict(zip(FACTS, texts, strict=True))


def _set(element: Text, text: str) -> None:
    if element.text != text:
        element.text = text
