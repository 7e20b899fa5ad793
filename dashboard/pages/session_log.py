# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The logs of a job, where FLARE lets this role read them."""

from __future__ import annotations

from nicegui import ui
from starlette.concurrency import run_in_threadpool

from custom.errors import BundleError
from dashboard.flare import Flare
from dashboard.pages.parts import Text, attributes, box, button, card, loading, notice

EVERY_S = 5.0
LAST_LINES = 500


class Log:
    """Reads them when the tab is opened, and again every few seconds while the job runs."""

    def __init__(self, flare: Flare, job_id: str) -> None:
        self._flare, self._job_id = flare, job_id
        self._logs: dict[str, str] = {}
        self._busy = False
        with card():
            with box("card-head"):
                Text("h2", "Log")
                self._site = ui.select([], on_change=self._show_site).classes("metric")
                self._site.props("outlined dense options-dense")
                attributes(self._site, aria_label="Site", data_testid="log-site")
                self._site.visible = False
                box("spring")
                button("Read again", self._read, "refresh", name="log-refresh")
            self._place = box("stack")
        with self._place:
            loading("Asking FLARE for the logs ...")
        self._timer = ui.timer(EVERY_S, self._read_if_running, active=False)

    async def show(self, visible: bool) -> None:
        """The tab was opened, or left."""
        self._timer.active = visible
        if visible:
            await self._read()

    async def _read_if_running(self) -> None:
        job = self._flare.snapshot().job(self._job_id)
        if job is not None and not job.ended and self._logs:
            await self._read()

    async def _read(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            self._logs = await run_in_threadpool(self._flare.logs, self._job_id)
        except BundleError as error:
            self._place.clear()
            with self._place:
                notice("info", "The log cannot be shown", [str(error)], "log-problem")
            return
        finally:
            self._busy = False
        names = sorted(self._logs, key=lambda name: (name != "server", name))
        self._site.visible = len(names) > 1
        if self._site.options != names:
            chosen = self._site.value if self._site.value in names else next(iter(names), None)
            self._site.set_options(names, value=chosen)
        self._show_site()

    def _show_site(self) -> None:
        lines = self._logs.get(str(self._site.value or ""), "").splitlines()
        self._place.clear()
        with self._place:
            if len(lines) > LAST_LINES:
                Text("p", f"the last {LAST_LINES} of {len(lines)} lines", "soft")
            text = "\n".join(lines[-LAST_LINES:]) or "The log is empty."
            with attributes(box("log"), tabindex="0", aria_label="Log lines", role="region"):
                attributes(Text("pre", text), data_testid="log")
