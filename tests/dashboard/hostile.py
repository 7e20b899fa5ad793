# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`python -m tests.dashboard.hostile`: the dashboard on a system whose names, settings and errors are all HTML."""

from __future__ import annotations

import sys
import time

from bundle.report.model import Report, Round, Score
from dashboard import __main__ as command
from dashboard import app, flare
from dashboard.system import COMPLETED, RUNNING, Client, Job, Snapshot

HTML = "<img src=x onerror=alert(1)>"
SCRIPT = "</script><script>alert(2)</script>"
TEMPLATE = "{{ constructor.constructor('alert(3)')() }}"
JOB_ID, RUNNING_ID = "0" * 8 + "-1", "1" * 8 + "-1"


class Hostile(flare.Flare):
    """Answers from here, and never connects."""

    def start(self) -> None:
        """Nothing to connect to."""

    def snapshot(self) -> Snapshot:
        """Always the same."""
        now = time.time()
        names = {"sites": (HTML, SCRIPT), "settings": {"num_rounds": HTML, SCRIPT: TEMPLATE}, "start_from": HTML}
        jobs = (
            Job(RUNNING_ID, SCRIPT, RUNNING, HTML, now, 3.0, reason=HTML, **names),
            Job(JOB_ID, HTML, COMPLETED, TEMPLATE, now, 3.0, **names),
        )
        clients = (Client(HTML, now, (RUNNING_ID,), {SCRIPT: HTML}), Client(SCRIPT, now), Client(TEMPLATE, None))
        return Snapshot(1, now, "", "started", now, clients, jobs, {RUNNING_ID: ({"event": "job_started"},)})

    def report(self, job_id: str) -> Report:
        """One with a round, so that charts are drawn."""
        scores = {HTML: {"val_accuracy": 0.5, SCRIPT: 0.1}, TEMPLATE: {"val_accuracy": 0.25}}
        row = Round(sites=scores, aggregate={"val_accuracy": 0.4, SCRIPT: 0.1}, round=1, num_rounds=1, position=1)
        return Report(
            job=HTML,
            site_names=[HTML, TEMPLATE],
            num_rounds=1,
            dataset={"dataset": SCRIPT, "embedded": True},
            initial=Score(scores, {"val_accuracy": 0.1}),
            rounds=[row],
            cross_site={HTML: {SCRIPT: {"test_accuracy": 0.5}}},
            errors=[HTML, SCRIPT],
            warnings=[TEMPLATE],
        )


if __name__ == "__main__":
    app.Flare = Hostile  # type: ignore[misc]
    sys.exit(command.main())
