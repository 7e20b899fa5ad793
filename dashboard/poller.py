# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The one thread that reads a FLARE system for all browsers."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import Any

from nvflare.fuel.flare_api.api_spec import SystemInfo

from bundle.connection import Connection
from custom.errors import BundleError
from dashboard.asker import Asker
from dashboard.clients import Contacts, clients
from dashboard.live import LiveJobs
from dashboard.metas import to_job
from dashboard.system import RUNNING, Client, Job, Snapshot

# Each reading is also a line in the server's audit log: so no more often than somebody can notice.
EVENTS_S = 1.0  # of each running job
SYSTEM_S = 4.0
JOBS_S = 2.0  # while one waits or runs
IDLE_JOBS_S = 4.0
# A large system is read less often, so that it costs no more: seconds of rest for each second that a reading took, and
# for each that it kept this process busy.
REST, BUSY_REST, LONGEST_REST_S = 0.25, 20.0, 5.0
BACKOFF_S = (1.0, 2.0, 4.0, 5.0)
logger = logging.getLogger(__name__)


class Poller:
    """Keeps `snapshot` up to date.

    Args:
        connection: to read through.
    """

    def __init__(self, connection: Connection) -> None:
        self.snapshot = Snapshot()
        self._connection = connection
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._poll, name="flare-poller", daemon=True)
        self._asker = Asker(connection, self._wake.set)
        self._failures = 0
        self._live = LiveJobs(connection)  # an id is never used again, so what was seen of a job stays true
        self._start_over()

    def _start_over(self) -> None:
        """What was known of a server that was lost may not be true of the one that answers next."""
        self._system: SystemInfo | None = None
        self._contacts = Contacts()
        self._last_contacts: dict[str, float | None] = {}
        self._jobs: tuple[Job, ...] = ()
        self._jobs_read = 0.0
        self._due = {"system": 0.0, "jobs": 0.0, "events": 0.0}  # by time.monotonic()

    def start(self) -> None:
        """Starts reading; returns at once."""
        self._thread.start()
        self._asker.start()

    def stop(self, wait_s: float) -> None:
        """Ends the reading."""
        self._stopped.set()
        self._wake.set()
        self._asker.stop()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def hurry(self) -> None:
        """Something was just changed: read the jobs again now."""
        self._due["jobs"] = 0.0
        self._wake.set()

    def _poll(self) -> None:
        while not self._stopped.is_set():
            try:
                self._connection.connect()
                started, busy = time.monotonic(), time.thread_time()
                self._read(started)
                self._failures, now = 0, time.monotonic()
                pause = max(REST * (now - started), BUSY_REST * (time.thread_time() - busy))
                rest = max(min(self._due.values()) - now, min(pause, LONGEST_REST_S))
            except BundleError as error:
                rest = self._failed(str(error))
            except Exception:  # of an answer that is not as FLARE's usually are; the thread must go on
                logger.exception("an answer of FLARE could not be read")
                rest = self._failed("FLARE's answer could not be read; see the dashboard's log")
            self._wake.wait(rest)
            self._wake.clear()

    def _failed(self, problem: str) -> float:
        """Says so, and how long to wait before the next try."""
        if not self._failures:
            logger.warning("%s", problem)
        self._start_over()
        self._asker.notice([], [])
        self._publish(replace(self.snapshot, problem=problem))
        self._failures += 1
        return BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1]

    def _read(self, now: float) -> None:
        if self._is_due("system", now, SYSTEM_S) or self._system is None:
            self._read_system()
        if self._is_due("jobs", now, JOBS_S if self._unfinished() else IDLE_JOBS_S):
            self._read_jobs()
        running = [job for job in self._jobs if job.status == RUNNING and not job.lost]
        if self._is_due("events", now, EVENTS_S if running else SYSTEM_S):
            for job in running:
                self._read_events(job)
        self._publish(self._snapshot())
        self._asker.notice(self._alive(), [job.job_id for job in running])

    def _is_due(self, what: str, now: float, period_s: float) -> bool:
        due = now >= self._due[what]
        if due:
            self._due[what] = now + period_s
        return due

    def _unfinished(self) -> bool:
        return any(not job.ended and not job.lost for job in self._jobs)

    def _read_system(self) -> None:
        before = self._at_the_server()
        self._system = self._connection.run(lambda session: session.get_system_info())
        if self._at_the_server() != before:
            self._due["jobs"] = 0.0
        contacts = {client.name: client.last_connect_time for client in self._system.client_info}
        self._last_contacts = self._contacts.read(contacts, time.time())

    def _at_the_server(self) -> set[str]:
        """Ids of the jobs that have a process there."""
        return {job.job_id for job in self._system.job_info} if self._system else set()

    def _read_jobs(self) -> None:
        metas = self._connection.run(lambda session: session.list_jobs(detailed=True))
        server_started = self._system.server_info.start_time if self._system else None
        jobs = [to_job(meta, server_started) for meta in metas]
        self._jobs_read = time.time()
        self._jobs = tuple(sorted(jobs, key=lambda job: (-job.submitted, job.job_id)))
        running = [job.job_id for job in jobs if job.status == RUNNING]
        self._live.forget(running, [job.job_id for job in jobs])

    def _read_events(self, job: Job) -> None:
        try:
            self._live.read(job.job_id, [site for site in self._alive() if not job.sites or site in job.sites])
        except BundleError as error:  # it has just ended, or is too busy to answer
            logger.debug("no events of %s: %s", job.job_id, error)
            self._due["jobs"] = 0.0

    def _alive(self) -> list[str]:
        return [client.name for client in self._clients() if not client.is_silent(time.time())]

    def _clients(self) -> tuple[Client, ...]:
        return clients(self._last_contacts, self._asker.said, self._at_the_server())

    def _snapshot(self) -> Snapshot:
        assert self._system is not None
        taken = time.time()
        return Snapshot(
            version=self.snapshot.version,
            taken=taken,
            server_started=self._system.server_info.start_time,
            clients=self._clients(),
            jobs=tuple(_running_until(job, taken - self._jobs_read) for job in self._jobs),
            events=self._live.events(),
        )

    def _publish(self, snapshot: Snapshot) -> None:
        changed = _essence(snapshot) != _essence(self.snapshot)
        self.snapshot = replace(snapshot, version=self.snapshot.version + changed)


def _running_until(job: Job, later_s: float) -> Job:
    return replace(job, seconds=job.seconds + later_s) if job.status == RUNNING and job.seconds is not None else job


def _essence(snapshot: Snapshot) -> Any:
    """All but what changes by itself as time goes on."""
    return (
        snapshot.problem,
        snapshot.taken > 0,
        snapshot.server_started,
        [replace(client, last_contact=float(client.is_silent(snapshot.taken))) for client in snapshot.clients],
        [replace(job, seconds=None) if job.status == RUNNING else job for job in snapshot.jobs],
        {job_id: len(events) for job_id, events in snapshot.events.items()},
    )
