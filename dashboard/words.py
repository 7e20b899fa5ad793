# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Status, times and sizes of FLARE as people read them; colour is never the only sign."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bundle.report.wording import human_seconds
from dashboard.system import Client, Job, Snapshot

DAY_S = 86400.0
JUST_NOW_S = 1.5


@dataclass(frozen=True)
class Mark:
    """How a state is shown: a word, the name of a Material icon, and a CSS class."""

    word: str
    icon: str
    kind: str


WAITING = Mark("Waiting", "schedule", "idle")
LOST = Mark("Lost", "link_off", "bad")
STATUS = {
    "SUBMITTED": WAITING,
    "APPROVED": WAITING,
    "DISPATCHED": Mark("Starting", "rocket_launch", "busy"),
    "RUNNING": Mark("Running", "autorenew", "busy"),
    "FINISHED:COMPLETED": Mark("Completed", "check_circle", "good"),
    "FINISHED:ABORTED": Mark("Aborted", "block", "warn"),
    "FINISHED:EXECUTION_EXCEPTION": Mark("Failed", "error", "bad"),
    "FINISHED:ABNORMAL": Mark("Ended abnormally", "warning", "warn"),
    "FINISHED:CAN_NOT_SCHEDULE": Mark("Could not be scheduled", "event_busy", "bad"),
    "FINISHED:FAILED_TO_RUN": Mark("Failed to start", "error", "bad"),
    "FINISHED:ABANDONED": Mark("Abandoned", "error", "bad"),
}


def status(job: Job) -> Mark:
    """Of a job, after FLARE's word for it."""
    if job.lost:
        return LOST
    word = job.status.removeprefix("FINISHED:").replace("_", " ").capitalize()
    return STATUS.get(job.status) or Mark(word, "help", "idle")


def is_over(job: Job) -> bool:
    """Will nothing more come of it?"""
    return job.ended or job.lost


def connection(client: Client, snapshot: Snapshot) -> Mark:
    """Of a site."""
    if snapshot.problem:
        return Mark("Not known", "help", "idle")
    if client.is_silent(snapshot.taken):
        return Mark("Silent", "cloud_off", "bad")
    return Mark("Connected", "cloud_done", "good")


def ago(then: float | None, now: float) -> str:
    """`4 s ago`, `3 min ago`, `5 h ago` or `2 days ago`."""
    if not then:
        return "never"
    seconds = max(now - then, 0.0)
    if seconds < JUST_NOW_S:
        return "just now"
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < DAY_S:
        return f"{seconds // 3600:.0f} h ago"
    days = int(seconds // DAY_S)
    return f"{days} day{'s' if days > 1 else ''} ago"


def moment(seconds: float) -> str:
    """Local date and time of this machine; a dash if it is not known."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"


def elapsed(job: Job, snapshot: Snapshot, now: float) -> str:
    """How long it ran, or has been running until now; a dash before it starts."""
    if job.seconds is None:
        return "-"
    running = 0.0 if is_over(job) or snapshot.problem else max(now - snapshot.taken, 0.0)
    return human_seconds(job.seconds + running)


def short(job_id: str) -> str:
    """The beginning of an id, which is enough to tell jobs apart."""
    return job_id.partition("-")[0][:8]


def value(setting: Any) -> str:
    """A setting as the form shows it."""
    if isinstance(setting, bool):
        return "on" if setting else "off"
    if setting is None:
        return "not set"
    return setting if isinstance(setting, str) else json.dumps(setting)


def settings_line(settings: Mapping[str, Any]) -> str:
    """`num_rounds 10, local_lr 0.01`."""
    return ", ".join(f"{key} {value(setting)}" for key, setting in settings.items())
