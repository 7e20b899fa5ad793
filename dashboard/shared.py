# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Reports that all browsers share: each state of a job is read once, in a thread, however many look at it."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from nicegui import background_tasks
from starlette.concurrency import run_in_threadpool

from bundle.report.model import Report
from custom.errors import BundleError
from dashboard.flare import Flare
from dashboard.words import is_over

MOST_KEPT, UNSEEN_S = 40, 30.0  # more are kept only of what a page shows
RETRY_S = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Reading:
    """One reading of a job's report; compared by identity, so it can tell whether anything is new.

    Attributes:
        report: None if it could not be read.
        problem: why not, as a sentence.
        final: was the job over when it was read? What comes before that is what was seen while it ran.
    """

    report: Report | None = None
    problem: str = ""
    final: bool = False


@dataclass
class _Entry:
    state: Hashable = None  # of the job, when `reading` was asked for
    reading: Reading | None = None
    asked: float = 0.0
    seen: float = 0.0  # when a page last looked at it
    loading: bool = False


class Reports:
    """Gives the newest reading at once, and fetches a newer one in the background where the job has changed.

    Attributes:
        version: grows with each reading.
    """

    def __init__(self, flare: Flare) -> None:
        self._flare = flare
        self.version = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def latest(self, job_id: str) -> Reading | None:
        """None until the first reading is there, and for a job that FLARE does not have."""
        snapshot = self._flare.snapshot()
        job = snapshot.job(job_id)
        if job is None:
            return None
        entry = self._entries.setdefault(job_id, _Entry())
        entry.seen = time.monotonic()
        self._entries.move_to_end(job_id)
        while len(self._entries) > MOST_KEPT and entry.seen - next(iter(self._entries.values())).seen > UNSEEN_S:
            self._entries.popitem(last=False)
        events = 0 if is_over(job) else len(snapshot.events.get(job_id, ()))
        state = (job.status, job.lost, events)
        failed = entry.reading is not None and bool(entry.reading.problem)
        due = state != entry.state or (failed and time.monotonic() - entry.asked > RETRY_S)
        if due and not entry.loading:
            entry.state, entry.asked, entry.loading = state, time.monotonic(), True
            background_tasks.create(self._load(job_id, entry, is_over(job)), name=f"report {job_id}")
        return entry.reading

    async def _load(self, job_id: str, entry: _Entry, final: bool) -> None:
        try:
            entry.reading = Reading(await run_in_threadpool(self._flare.report, job_id), final=final)
        except BundleError as error:
            entry.reading = Reading(problem=str(error), final=final)
        except Exception:  # a page must not wait for ever, whatever happened
            log.exception("report of job %s", job_id)
            entry.reading = Reading(problem="the report could not be read; the dashboard's log says why", final=final)
        finally:
            entry.loading = False
            self.version += 1
