# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The events of jobs while they run, as FLARE's `show_stats` gives them (custom.widgets.progress_log answers it)."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from nvflare.fuel.flare_api.flare_api import Session

from bundle.connection import Connection
from custom.errors import BundleError
from custom.events import Event, parse_lines
from custom.progress import PACKED, STATS, unpack

KEPT = 8  # jobs that ended, whose result may not be here yet
logger = logging.getLogger(__name__)


class LiveEvents:
    """Of one job. FLARE gives the whole file each time; only what is new is read."""

    def __init__(self) -> None:
        self.events: tuple[Event, ...] = ()
        self.answers = False  # is the job's process at the server up?
        self.tries = 0
        self._size = self._lines = 0

    def update(self, stats: Any) -> None:
        """Takes the answer of `show_stats`; one without progress, from another program's job, adds nothing."""
        server = _group(stats, "server")
        self.answers = bool(server)
        packed = _group(server, STATS).get(PACKED)
        try:
            lines = unpack(packed) if isinstance(packed, str) else b""
        except ValueError as error:
            logger.debug("%s", error)
            return
        if len(lines) > self._size:
            new = lines[self._size :]
            self.events = (*self.events, *parse_lines(new, self._lines + 1))
            self._size, self._lines = len(lines), self._lines + new.count(b"\n")


class LiveJobs:
    """Of all jobs that run, and of the last that did.

    Args:
        connection: to ask through.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs: OrderedDict[str, LiveEvents] = OrderedDict()

    def read(self, job_id: str, sites: Sequence[str]) -> None:
        """Asks for the events of a running job.

        A job's process at the server that is asked before it is set up, or after it ended, writes errors into the logs,
        and the server then waits for it while nothing else goes on. So a site's process is asked first: it runs after
        it spoke with that of the server.

        Args:
            job_id: of the job.
            sites: that may run it, and are alive.

        Raises:
            BundleError: no answer.
        """
        live = self._jobs.setdefault(job_id, LiveEvents())
        try:
            if not live.answers and sites:
                live.tries += 1
                site = sites[live.tries % len(sites)]
                live.answers = self._connection.run(lambda session: _runs(session, job_id, site), keep=True)
            if live.answers:
                live.update(self._connection.run(lambda session: session.show_stats(job_id, "server"), keep=True))
        except BundleError:
            live.answers = False
            raise

    def forget(self, running: Iterable[str], stored: Iterable[str]) -> None:
        """Drops the jobs that are gone from the store, and of those that ended the oldest."""
        running, stored = set(running), set(stored)
        ended = [job_id for job_id in self._jobs if job_id not in running]
        too_many = ended[: max(len(ended) - KEPT, 0)]
        for job_id in {*too_many, *(job_id for job_id in ended if job_id not in stored)}:
            del self._jobs[job_id]

    def events(self) -> Mapping[str, tuple[Event, ...]]:
        """By job, those that have any."""
        return MappingProxyType({job_id: live.events for job_id, live in self._jobs.items() if live.events})


def _group(stats: Any, name: str) -> Mapping[str, Any]:
    """A part of an answer; empty if it is not there or something else."""
    group = stats.get(name) if isinstance(stats, dict) else None
    return group if isinstance(group, dict) else {}


def _runs(session: Session, job_id: str, site: str) -> bool:
    """Does that site's process of the job run?"""
    jobs = session.get_client_job_status([site]) or []
    if not any(job.get("job_id") == job_id and job.get("status") == "started" for job in jobs):
        return False
    answer = session.show_stats(job_id, "client", [site]).get(site)
    return isinstance(answer, dict) and "ClientRunner" in answer
