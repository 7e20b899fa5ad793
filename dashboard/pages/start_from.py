# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Choosing the model that training starts from."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from nicegui import events, ui
from starlette.concurrency import run_in_threadpool

from bundle.initial_model import JOB_ID
from bundle.report.wording import human_bytes
from dashboard.catalog import JobForm
from dashboard.pages.live import Live
from dashboard.pages.parts import TOGGLE, Text, attributes, box
from dashboard.security import LONGEST_UPLOAD
from dashboard.system import ABORTED, COMPLETED, Job, Snapshot
from dashboard.web import Web
from dashboard.words import ago, short, status

SCRATCH, JOB, FILE = "scratch", "job", "file"
WAYS = {SCRATCH: "Scratch", JOB: "An earlier job", FILE: "A file"}
NEW, EARLIER = "New weights, drawn with the seed.", "The first round starts from its weights, which must fit the model."
MOST_JOBS = 200


class StartFrom:
    """From scratch, from the final model of a job that ended, or from an uploaded file.

    Args:
        web: what pages share.
        live: brings jobs that end meanwhile.
        form: jobs of this form come first.
        wanted: what a job started from that is to be launched again: id of a job, name of a file, or nothing.
    """

    def __init__(self, web: Web, live: Live, form: JobForm, wanted: str = "") -> None:
        self._web, self._form, self._wanted = web, form, wanted
        self._file: Path | None = None
        options = self._jobs(web.flare.snapshot())
        self._shown = options.keys()
        begin = SCRATCH if not wanted else JOB if JOB_ID.fullmatch(wanted) else FILE
        self._way = ui.toggle(WAYS, value=begin, on_change=self._show).classes("toggle").props(TOGGLE)
        attributes(self._way, data_testid="start-from", aria_label="Start from")
        self._job = ui.select(options, value=wanted if wanted in options else None, with_input=True, label="Job")
        self._job.props("outlined dense stack-label options-dense").classes("field")
        attributes(self._job, data_testid="start-job")
        with box("stack") as self._upload_box:
            self._upload = ui.upload(
                label="A model saved by torch.save (.pt)",
                auto_upload=True,
                max_files=1,
                max_file_size=LONGEST_UPLOAD,
                on_upload=self._uploaded,
                on_rejected=self._rejected,
            )
            self._upload.classes("upload").props("flat bordered")
            attributes(self._upload, data_testid="upload")
            again = f"The other job started from {wanted}; upload it again. " if begin == FILE else ""
            self._told = Text("p", f"{again}At most {human_bytes(LONGEST_UPLOAD)}.", "help")
            attributes(self._told, data_testid="upload-state", role="status")
        self._help = Text("p", "", "help")
        self._show()
        if begin == JOB and wanted not in options:
            text = f"The other job started from the model of job {short(wanted)}, which is gone: choose another one."
            attributes(Text("p", text, "problem"), role="status", data_testid="start-gone")
        live.always(self._update)

    def chosen(self) -> str:
        """The id of a job, the path of the file, or nothing."""
        if self._way.value == JOB:
            return str(self._job.value or "")
        return str(self._file or "") if self._way.value == FILE else ""

    def problem(self) -> str:
        """Why it cannot be launched so; empty if it can."""
        if self._way.value == JOB and not self._job.value:
            return "Start from: choose the job"
        return "Start from: upload the file" if self._way.value == FILE and not self._file else ""

    def _show(self) -> None:
        self._job.visible = self._way.value == JOB
        self._upload_box.visible = self._way.value == FILE
        self._help.text = NEW if self._way.value == SCRATCH else EARLIER

    def _update(self, snapshot: Snapshot) -> None:
        options, value = self._jobs(snapshot), self._job.value
        if options.keys() != self._shown:
            self._shown = options.keys()
            self._job.set_options(options, value=value if value in options else None)

    def _jobs(self, snapshot: Snapshot) -> dict[str, str]:
        """Those that are likely to have left a model, with what to call them; the newest first, but others' last."""
        ended = [job for job in snapshot.jobs if job.status in (COMPLETED, ABORTED)][:MOST_JOBS]
        if (wanted := snapshot.job(self._wanted)) and wanted.ended and wanted not in ended:
            ended.append(wanted)
        ended.sort(key=lambda job: job.name != self._form.name)  # the sort is stable
        return {job.job_id: _name(job, snapshot.taken) for job in ended}

    async def _uploaded(self, event: events.UploadEventArguments) -> None:
        self._forget()
        path = self._web.new_upload(event.file.name)
        await event.file.save(path)
        if not await run_in_threadpool(zipfile.is_zipfile, path):
            shutil.rmtree(path.parent, ignore_errors=True)
            self._told.text = f"{event.file.name} is not a model saved by torch.save; choose another file."
            self._upload.reset()
            return
        self._file = path
        self._told.text = f"{event.file.name}, {human_bytes(path.stat().st_size)}, is here."
        ui.context.client.on_delete(self._forget)

    def _rejected(self) -> None:
        self._told.text = f"One file of at most {human_bytes(LONGEST_UPLOAD)}, please."

    def _forget(self) -> None:
        if self._file:
            shutil.rmtree(self._file.parent, ignore_errors=True)
            self._file = None


def _name(job: Job, now: float) -> str:
    ended = "" if job.status == COMPLETED else f"{status(job).word.lower()}, "
    return f"{job.name} {short(job.job_id)}, {ended}{ago(job.submitted, now)}"
