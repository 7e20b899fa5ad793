# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The one object that pages use of a FLARE system: what it is doing now, its jobs' results, launch and abort."""

from __future__ import annotations

import logging
import re
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from nvflare.fuel.flare_api.api_spec import InvalidJobDefinition, SubmitTokenConflict
from nvflare.fuel.flare_api.flare_api import Session

from bundle.admin_kit import Kit
from bundle.connection import Connection, Refused, Unreachable
from bundle.report.model import Report
from bundle.report.reading import build
from custom.errors import BundleError
from custom.printable import printable_lines
from dashboard.metas import to_job
from dashboard.poller import Poller
from dashboard.redact import redact
from dashboard.results import NOT_SEEN, WAS_ABORTED, Results
from dashboard.system import ABORTED, COMPLETED, Job, Snapshot

STOP_S = 3.0
FLARE_LOG = logging.getLogger("nvflare")  # what it says of a lost connection is in the snapshot, as a sentence
JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MOST_LOG = 200_000  # characters of one site's log
MOST_TOKENS = 1000
# With a token FLARE refuses a job that holds a larger file (nvflare.apis.utils.job_submit_token), such as a model to
# start from. Then the token is remembered only here.
LARGEST_WITH_TOKEN = 10 * 1024 * 1024


class Flare:
    """A FLARE system, over its admin API. Every method may be called from any thread.

    Args:
        kit: whose identity and rights are used.
        cache: folder for downloaded results and uploads; made if it is not there.
    """

    def __init__(self, kit: Kit, cache: Path) -> None:
        self.kit = kit
        self.cache = cache
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._connection = Connection(kit)
        self._poller = Poller(self._connection)
        self._results = Results(self._connection, cache)
        self._submitted: OrderedDict[str, str] = OrderedDict()  # job id by token
        self._submitting = threading.Lock()
        self._may_submit: Session | None = None  # the newest in which FLARE has said so

    def start(self) -> None:
        """Connects, and reads the system from now on; returns at once."""
        FLARE_LOG.setLevel(logging.CRITICAL)
        self._poller.start()

    def stop(self) -> None:
        """Ends every thread and logs out; waits for both, a few seconds at most."""
        self._poller.stop(STOP_S)
        self._connection.close()
        FLARE_LOG.setLevel(logging.NOTSET)

    def snapshot(self) -> Snapshot:
        """The newest reading; instant, and never raises. Before the first it is empty, with `taken` 0."""
        return self._poller.snapshot

    def report(self, job_id: str) -> Report:
        """Of a running job from its live events, of one that ended from its result, which is downloaded once.

        Why a job that ended did so is in `errors`, even if it died before it started.

        Raises:
            BundleError: no such job, no right to download it, or the system cannot be reached.
        """
        job = self._job(job_id)
        if not job.ended:
            return self._live_report(job)
        try:
            return self._results.report(job)
        except Unreachable:
            raise
        except BundleError as error:
            if not isinstance(error, Refused) and not job.reason:
                raise
            return self._without_result(job, error)

    def logs(self, job_id: str) -> dict[str, str]:
        """The end of the log of each site, and of `server`; the newest lines last.

        Raises:
            BundleError: the role does not allow it, no such job, or the system cannot be reached.
        """
        _check(job_id)
        answer = self._connection.run(lambda session: session.get_job_logs(job_id, target="all"), keep=True)
        logs = answer.get("logs") or {}
        texts = {site: text for site, text in sorted(logs.items()) if isinstance(text, str)}
        return {site: printable_lines(redact(_end_of(text))) for site, text in texts.items()}

    def abort(self, job_id: str) -> None:
        """Ends a job that runs or waits.

        Raises:
            BundleError: the role does not allow it, the job has ended, or the system cannot be reached.
        """
        job = self._job(job_id)
        if job.ended:
            raise BundleError("the job has ended already", code="job-state")
        if job.lost:
            raise BundleError(f"there is nothing to abort: {job.reason}", code="job-state")
        self._connection.run(lambda session: session.abort_job(job_id), keep=True)
        self._poller.hurry()

    def check_right_to_submit(self) -> None:
        """Asks FLARE whether this user may submit jobs, before one is packed; only once a session if so.

        Raises:
            Refused: the role does not allow it.
            BundleError: the system cannot be reached.
        """

        def check(session: Session) -> None:
            if session is not self._may_submit:
                _submit_nothing(session)
                self._may_submit = session

        self._connection.run(check, keep=True)

    def submit(self, folder: Path, token: str) -> str:
        """Submits an exported job folder; its id. The same token again gives the id of the first submission.

        Raises:
            BundleError: FLARE refuses the job or the role, or the system cannot be reached.
        """
        with self._submitting:
            if token not in self._submitted:
                large = any(file.stat().st_size > LARGEST_WITH_TOKEN for file in folder.rglob("*") if file.is_file())
                given = None if large else token
                self._submitted[token] = self._connection.run(
                    lambda session: _submit(session, folder, given), keep=True
                )
                while len(self._submitted) > MOST_TOKENS:
                    self._submitted.popitem(last=False)
            self._poller.hurry()
            return self._submitted[token]

    def result_folder(self, job_id: str) -> Path:
        """The result of a job that ended, as FLARE packs it (`workspace/`, `job/`); downloaded once.

        Raises:
            BundleError: it has not ended, no right to download it, or the system cannot be reached.
        """
        return self._results.folder(self._ended(job_id).job_id)

    def model_file(self, job_id: str, best: bool = False) -> Path:
        """The global model of a job that ended: the last one, or the best by validation.

        Raises:
            BundleError: as `result_folder`, or the job left no such model.
        """
        return self._results.model(self._ended(job_id).job_id, best)

    def _without_result(self, job: Job, error: BundleError) -> Report:
        """Of a job that ended: what FLARE's list says, and what was seen while it ran."""
        report = self._live_report(job)
        report.status = "failed" if job.reason else report.status
        if job.status == COMPLETED and not report.finished:
            report.errors.append(NOT_SEEN)
        if job.status == ABORTED:
            report.errors.insert(0, WAS_ABORTED)
            report.status = report.status if report.finished else "aborted"
        report.warnings.append(f"this shows no more than was seen while the job ran: {error}")
        return report

    def _live_report(self, job: Job) -> Report:
        report = build(list(self.snapshot().events.get(job.job_id, ())))
        report.job, report.job_id = report.job or job.name, job.job_id
        report.errors = [redact(error) for error in [job.reason, *report.errors] if error]
        return report

    def _ended(self, job_id: str) -> Job:
        job = self._job(job_id)
        if not job.ended:
            raise BundleError("the job has not ended yet", code="job-state", remedy="its result is there when it has")
        return job

    def _job(self, job_id: str) -> Job:
        """As the store has it; the newest reading may not have a job that was just submitted."""
        _check(job_id)
        snapshot = self.snapshot()
        job = snapshot.job(job_id)
        if job is not None:
            return job
        if snapshot.taken and not snapshot.problem:
            self._results.forget(job_id)
        return to_job(self._connection.run(lambda session: session.get_job_meta(job_id)), snapshot.server_started)


def _check(job_id: str) -> None:
    """What is put into a command of FLARE's, or into a path, is nothing but an id."""
    if not JOB_ID.fullmatch(job_id):
        raise BundleError(f"is not a job ID: {job_id!r:.60}", code="job-not-found")


def _submit(session: Session, folder: Path, token: str | None) -> str:
    try:
        return str(session.submit_job(str(folder.resolve()), token))
    except SubmitTokenConflict as error:  # launched before by this user, and something of the export differs
        if not error.existing_job_id:
            raise
        return str(error.existing_job_id)


def _submit_nothing(session: Session) -> None:
    """Submits a folder without a job. FLARE has no command that asks, and looks at the right before the job.

    The role in the certificate does not tell: what it may do is in the server's policy.

    Raises:
        AuthorizationError: this user may not submit jobs.
    """
    with tempfile.TemporaryDirectory(prefix="dashboard-") as temporary:
        folder = Path(temporary, "may-submit")
        folder.mkdir()
        with suppress(InvalidJobDefinition):  # the user may, but this is not a job
            session.submit_job(str(folder))


def _end_of(text: str) -> str:
    if len(text) <= MOST_LOG:
        return text
    return f"... {len(text) - MOST_LOG} characters are left out ...\n" + text[-MOST_LOG:].partition("\n")[2]
