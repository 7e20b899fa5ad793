# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Results of jobs that ended: downloaded once, kept on disk while there is room, read to reports."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bundle.connection import Connection, Refused
from bundle.events import read_events
from bundle.report.causes import first_cause
from bundle.report.locate import Run
from bundle.report.model import Report
from bundle.report.outcome import what_went_wrong
from bundle.report.reading import MODELS, read_report
from custom.errors import BundleError
from custom.names import is_name
from custom.progress import FILE_NAME
from dashboard.redact import redact
from dashboard.system import ABORTED, COMPLETED, Job

FOLDER = "results"  # in the cache
MOST_RESULTS, MOST_BYTES = 20, 5 * 10**9  # of which the newest always stays
MOST_REPORTS = 50  # in memory
ERROR_LOG = "error_log.txt"
SITE_LOG = "ERRORLOG_"  # component of a job's entry in FLARE's store: errors that a site wrote, sent when it ended
SITE_LOG_S = 2.0  # that it may take after the job ended
WAS_ABORTED = "it was aborted"
NOT_SEEN = "FLARE says that it completed, and its end was not seen here"
LAST, BEST = "final global model", "best global model"
logger = logging.getLogger(__name__)


class Results:
    """Downloads and reads.

    Args:
        connection: to download through.
        cache: folder for downloads.
    """

    def __init__(self, connection: Connection, cache: Path) -> None:
        self._connection = connection
        self._folder = cache / FOLDER
        self._reports: OrderedDict[tuple[str, str], Report] = OrderedDict()
        self._lock = threading.Lock()  # of the two dictionaries
        self._making_room = threading.Lock()
        self._jobs: dict[str, threading.Lock] = {}  # held while the folder of that job is written, read or removed

    def folder(self, job_id: str) -> Path:
        """Where the result of that job lies now; of the 20 last used, which are not removed.

        Raises:
            BundleError: it has not ended, the user may not download it, or the system cannot be reached.
        """
        with self._held(job_id) as folder:
            return folder

    def report(self, job: Job) -> Report:
        """Of a job that ended, however it did.

        Raises:
            BundleError: as `folder`.
        """
        key = (job.job_id, job.status)
        with self._lock:
            known = self._reports.get(key)
            if known:
                self._reports.move_to_end(key)
                return known
        with self._held(job.job_id) as folder:
            if job.status not in (COMPLETED, ABORTED):
                self._fetch_site_logs(job.job_id, folder / "workspace")
            report = _read(folder, job)
        with self._lock:
            self._reports[key] = report
            while len(self._reports) > MOST_REPORTS:
                self._reports.popitem(last=False)
        return report

    def model(self, job_id: str, best: bool = False) -> Path:
        """The file of a global model.

        Raises:
            BundleError: as `folder`, or the job left none.
        """
        workspace = self.folder(job_id) / "workspace"
        kinds = [BEST] if best else [LAST, *(kind for kind in MODELS if kind not in (LAST, BEST))]
        for kind in kinds:
            if (workspace / MODELS[kind]).is_file():
                return workspace / MODELS[kind]
        raise BundleError(
            f"the job left no {BEST if best else 'global model'}",
            code="nothing-trained",
            remedy="it may have ended before its first round",
        )

    def forget(self, job_id: str) -> None:
        """Removes what is kept of a job that was deleted."""
        with self._lock:
            for key in [key for key in self._reports if key[0] == job_id]:
                del self._reports[key]
        with self._lock_of(job_id):
            shutil.rmtree(self._folder / job_id, ignore_errors=True)

    @contextmanager
    def _held(self, job_id: str) -> Iterator[Path]:
        """The folder of a result, which nobody removes meanwhile; two browsers that open a job download it once."""
        with self._lock_of(job_id):
            folder = self._folder / job_id
            if not folder.is_dir():
                self._download(job_id, folder)
                self._make_room()
            os.utime(folder)
            yield folder

    def _lock_of(self, job_id: str) -> threading.Lock:
        with self._lock:
            return self._jobs.setdefault(job_id, threading.Lock())

    def _download(self, job_id: str, folder: Path) -> None:
        part = self._folder / f".{job_id}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True, mode=0o700)
        try:
            place = self._connection.run(lambda session: session.download_job_result(job_id, str(part)), keep=True)
            if not place or not Path(place).is_dir():
                raise BundleError(
                    "FLARE sent no result", code="flare-refuses", remedy="try again; the server's log may say why"
                )
            os.replace(place, folder)
        except OSError as error:
            raise BundleError(
                f"the result cannot be stored: {error.strerror}", code="not-writable", key=str(self._folder)
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _fetch_site_logs(self, job_id: str, workspace: Path) -> None:
        """Where classes cannot be made at a site, only its own log says why; the right to see it is not common."""
        if any(workspace.glob(f"*/{ERROR_LOG}")):
            return
        for attempt in (1, 2):
            try:
                place = self._connection.run(lambda session: session.download_job_components(job_id), keep=True)
            except Refused:
                return
            except BundleError as error:  # among others: there are none
                logger.debug("no logs of the sites of %s: %s", job_id, error)
                place = None
            if place or attempt == 2:
                break
            time.sleep(SITE_LOG_S)
        for log in Path(place).glob(f"{SITE_LOG}*") if place else ():
            site = log.name.removeprefix(SITE_LOG)
            if is_name(site):
                (workspace / site).mkdir(parents=True, exist_ok=True)
                shutil.move(log, workspace / site / ERROR_LOG)
        if place:
            shutil.rmtree(place, ignore_errors=True)

    def _make_room(self) -> None:
        """Removes what was not used for the longest time, but for what is being used."""
        with self._making_room:
            folders = [path for path in self._folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
            ages = {path: _last_used(path) for path in folders}
            total = 0
            for place, folder in enumerate(sorted(folders, key=lambda path: ages[path], reverse=True)):
                total += _size(folder)
                if place and (place >= MOST_RESULTS or total > MOST_BYTES):
                    lock = self._lock_of(folder.name)
                    if lock.acquire(blocking=False):
                        logger.info("removing the downloaded result %s", folder.name)
                        shutil.rmtree(folder, ignore_errors=True)
                        lock.release()


def _last_used(path: Path) -> float:
    """Unix seconds; 0 if it is gone meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(folder: Path) -> int:
    """Bytes of all files that are still there."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _read(folder: Path, job: Job) -> Report:
    workspace = folder / "workspace"
    try:
        report = read_report(folder, job.job_id)
    except BundleError:  # it ended before it wrote anything that a report is made of
        report = Report(folder=str(folder), job_id=job.job_id)
    if not report.site_names and not report.finished and workspace.is_dir():
        sites = [log.parent.name for log in sorted(workspace.glob(f"*/{ERROR_LOG}"))]
        cause = first_cause(Run(job.job_id, workspace, workspace), sites)
        report.errors = [cause] if cause else report.errors
    report.job = report.job or job.name
    report.errors = [redact(error.replace(f"{workspace}/", "")) for error in report.errors]
    if job.status == ABORTED:  # what the logs say of its end is a consequence
        report.errors = [WAS_ABORTED, *what_went_wrong(read_events(workspace / FILE_NAME))]
        report.status = report.status if report.finished else "aborted"
    elif job.reason:
        report.errors = [job.reason, *report.errors]
    if job.status not in (COMPLETED, ABORTED) and report.errors and not report.finished:
        report.status = "failed"
    return report
