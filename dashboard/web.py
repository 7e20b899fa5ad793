# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What all pages share: the FLARE system, the jobs' forms, and the reports that were read."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from dashboard.catalog import JobForm, load_forms
from dashboard.flare import Flare
from dashboard.shared import Reports

UPLOADS = "uploads"
KEEP_UPLOADS_S = 24 * 3600.0
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")  # in the name of a file
MOST_LETTERS = 100


class Web:
    """One for the whole process.

    Args:
        flare: started and stopped by the caller.
    """

    def __init__(self, flare: Flare) -> None:
        self.flare = flare
        self.reports = Reports(flare)
        self._forms: asyncio.Future[tuple[JobForm, ...]] | None = None

    async def forms(self) -> tuple[JobForm, ...]:
        """The jobs that can be launched; read once, in the background, which takes seconds.

        Raises:
            BundleError: a job of the bundle is broken; the next call tries again.
        """
        if self._forms is None or (self._forms.done() and self._forms.exception()):
            self._forms = asyncio.ensure_future(run_in_threadpool(load_forms))
        return await asyncio.shield(self._forms)

    def loaded_forms(self) -> tuple[JobForm, ...]:
        """The same at once; empty as long as they are not there."""
        ready = self._forms is not None and self._forms.done() and not self._forms.exception()
        return self._forms.result() if self._forms is not None and ready else ()

    def form(self, name: str) -> JobForm | None:
        """The form of a job, if it is there already."""
        return next((form for form in self.loaded_forms() if form.name == name), None)

    def remove_old_uploads(self) -> None:
        """Those that another process has left, or a page that was open for a day."""
        folder = self.flare.cache / UPLOADS
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in folder.iterdir():
            with suppress(FileNotFoundError):  # its page was closed just now
                if old.stat().st_mtime < time.time() - KEEP_UPLOADS_S:
                    shutil.rmtree(old, ignore_errors=True)

    def new_upload(self, name: str) -> Path:
        """Where to put an uploaded file: in a folder of a random name, so the file can keep its own."""
        self.remove_old_uploads()
        own = self.flare.cache / UPLOADS / secrets.token_hex(8)
        own.mkdir(mode=0o700)
        return own / (UNSAFE.sub("_", name).strip(".")[-MOST_LETTERS:] or "model.pt")
