# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`python -m tests.dashboard.hostile`: the dashboard on a system whose names, settings and errors are all HTML."""

from __future__ import annotations

import sys
import time

from bundle.report.model import Report, Round, Score
from custom.events import Event
from dashboard import __main__ as command
from dashboard import app, flare
from dashboard.system import COMPLETED, RUNNING, Client, Job, Snapshot

HTML = "<img src=x onerror=alert(1)>"
SCRIPT = "</script><script>alert(2)</script>"
TEMPLATE = "{{ constructor.constructor('alert(3)')() }}"
JOB_ID, RUNNING_ID = "0" * 8 + "-1", "1" * 8 + "-1"
FROM_FILE_ID, FROM_GONE_ID = "2" * 8 + "-1", "3" * 8 + "-1"
BROKEN_ID = "4" * 8 + "-1"
GONE_ID = "70e0cc18-e9da-40c4-b949-52c1979c2c39"


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
            Job(FROM_FILE_ID, "mnist", COMPLETED, settings={"model": [HTML], SCRIPT: 1}, start_from="my model.pt"),
            Job(BROKEN_ID, "mnist", COMPLETED),
            Job(FROM_GONE_ID, "mnist", COMPLETED, start_from=GONE_ID),
        )
        clients = (Client(HTML, now, (RUNNING_ID,), {SCRIPT: HTML}), Client(SCRIPT, now), Client(TEMPLATE, None))
        return Snapshot(1, now, "", now, clients, jobs, {RUNNING_ID: (Event(event="job_started"),)})

    def report(self, job_id: str) -> Report:
        """One with a round, so that charts are drawn; or one that no page can show."""
        if job_id == BROKEN_ID:
            return Report(job="mnist", status="completed", site_names=[None])  # type: ignore[list-item]
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
            left_out={HTML: {SCRIPT: 1}},
            data_notes={SCRIPT: [HTML]},
        )


if __name__ == "__main__":
    app.Flare = Hostile  # type: ignore[misc]
    sys.exit(command.main())
