# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the dashboard knows of a FLARE system at one moment: plain values, which pages only read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from custom.events import Event

SILENT_AFTER_S = 25.0  # two heartbeats and a half; FLARE itself waits 600 s before it calls a client dead
RUNNING = "RUNNING"
FINISHED = "FINISHED:"  # what FLARE's status of every job that ended begins with
COMPLETED = "FINISHED:COMPLETED"
ABORTED = "FINISHED:ABORTED"


@dataclass(frozen=True)
class Client:
    """A site, as the server reports it.

    Attributes:
        name: as in its certificate.
        last_contact: Unix seconds of its last heartbeat by this machine's clock; None if the server does not say.
        jobs: ids of the jobs it runs.
        resources: what FLARE reports of it, such as CPU, memory and GPUs, ready to show; empty until it is known.
    """

    name: str
    last_contact: float | None = None
    jobs: tuple[str, ...] = ()
    resources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def is_silent(self, now: float) -> bool:
        """Has it missed its heartbeats?"""
        return self.last_contact is None or now - self.last_contact > SILENT_AFTER_S


@dataclass(frozen=True)
class Job:
    """One entry of FLARE's job store.

    Attributes:
        job_id: FLARE's id.
        name: of the job folder it came from.
        status: FLARE's word, such as `SUBMITTED`, `RUNNING` or `FINISHED:COMPLETED`.
        submitter: the user who launched it.
        submitted: Unix seconds.
        seconds: how long it ran, or has been running; None before it starts.
        sites: that it was launched on; empty means all.
        settings: those that differ from the job's defaults, by key, if this dashboard launched it.
        launched_here: by a dashboard, which noted settings and start.
        start_from: the id of the job, or the name of the file, whose model it started from; empty for none.
        reason: one sentence on why it waits, did not start or was lost, where FLARE says so.
        lost: FLARE says RUNNING for ever, but its server was restarted since, and the job with it is gone.
    """

    job_id: str
    name: str
    status: str
    submitter: str = ""
    submitted: float = 0.0
    seconds: float | None = None
    sites: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    launched_here: bool = False
    start_from: str = ""
    reason: str = ""
    lost: bool = False

    @property
    def ended(self) -> bool:
        """Is it over, however it ended?"""
        return self.status.startswith(FINISHED) or self.status in ("ABANDONED", "FAILED_TO_RUN")


@dataclass(frozen=True)
class Snapshot:
    """One reading of the whole system.

    Attributes:
        version: grows by one whenever anything changed but what time changes: `taken`, a client's last contact while it
            is not silent, and how long a job has been running.
        taken: Unix seconds of the last successful reading; 0 before the first.
        problem: one sentence on why there is no reading now, and what to do; empty while all is well.
        server_started: Unix seconds.
        clients: by name.
        jobs: the newest first.
        events: of each running job, those of its progress.jsonl so far; of those that ended a short while ago, the ones
            that were seen.
    """

    version: int = 0
    taken: float = 0.0
    problem: str = ""
    server_started: float | None = None
    clients: tuple[Client, ...] = ()
    jobs: tuple[Job, ...] = ()
    events: Mapping[str, tuple[Event, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def job(self, job_id: str) -> Job | None:
        """The job with that id, if it is in the store."""
        return next((job for job in self.jobs if job.job_id == job_id), None)
