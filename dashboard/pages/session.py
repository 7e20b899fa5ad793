# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""One job: how far it is while it runs, and what it came to."""

from __future__ import annotations

from nicegui import ui
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from bundle.report.wording import embedded_warning, left_out_lines, note_lines, status_line
from custom.errors import BundleError
from dashboard.pages.frame import frame
from dashboard.pages.live import Live, reading_state
from dashboard.pages.parts import Text, attributes, box, button, card, chip, empty, link, link_button, not_read, notice
from dashboard.pages.session_curves import Curves
from dashboard.pages.session_log import Log
from dashboard.pages.session_progress import ProgressCard
from dashboard.pages.session_result import draw_downloads, draw_result
from dashboard.shared import Reading
from dashboard.system import Job, Snapshot
from dashboard.web import Web
from dashboard.words import ago, is_over, moment, short, status, value

MOST_ERRORS = 12


def add_page(web: Web) -> None:
    """Adds `/session/ID`."""

    @ui.page("/session/{job_id}")
    def session(request: Request, job_id: str) -> None:
        job = web.flare.snapshot().job(job_id)
        with frame(web, request, job.name if job else "Session", "Sessions") as live:
            live.part(
                lambda snapshot: (snapshot.job(job_id) is None, reading_state(snapshot)),
                lambda snapshot: _page(web, live, job_id, snapshot),
            )


def _page(web: Web, live: Live, job_id: str, snapshot: Snapshot) -> None:
    if not snapshot.taken:
        with box("title"):
            Text("h1", "Session")
        not_read(snapshot)
    elif snapshot.job(job_id) is None:
        text = "FLARE's store does not have it: it was deleted, or the address is wrong."
        with box("title"):
            Text("h1", "Session")
        empty("search_off", "There is no such job", text, "no-job")
        link_button("All sessions", "/sessions", "view_list")
    else:
        _Session(web, live, job_id)


class _Session:
    """The parts of the page, for as long as the job is in the store."""

    def __init__(self, web: Web, live: Live, job_id: str) -> None:
        self._web, self._job_id = web, job_id
        self._dialog = self._question()
        live.part(self._job_state, lambda snapshot: self._title(live, snapshot))
        live.part(self._notices_state, self._notices)
        tabs = ui.tabs().props("no-caps inline-label align=left dense").classes("tabs")
        with attributes(tabs, data_testid="tabs"):
            overview = _tab("Overview", "insights")
            settings = _tab("Settings", "tune")
            logs = _tab("Log", "article")
        with ui.tab_panels(tabs, value=overview, animated=False).classes("panels"):
            with ui.tab_panel(overview):
                self._overview(live)
            with ui.tab_panel(settings):
                live.part(self._settings_state, self._settings)
            with ui.tab_panel(logs):
                log = Log(web.flare, job_id)
        tabs.on_value_change(lambda event: log.show(event.value == "Log"))

    def _overview(self, live: Live) -> None:
        live.part(lambda snapshot: is_over(self._job(snapshot)), lambda snapshot: self._progress(live, snapshot))
        live.part(lambda snapshot: (is_over(self._job(snapshot)), self._reading()), self._result_head)
        live.always(Curves(self._reading).update)
        live.part(lambda snapshot: (is_over(self._job(snapshot)), self._reading()), self._result)

    def _job(self, snapshot: Snapshot) -> Job:
        return snapshot.job(self._job_id) or Job(self._job_id, "", "")

    def _reading(self) -> Reading | None:
        return self._web.reports.latest(self._job_id)

    def _job_state(self, snapshot: Snapshot) -> object:
        job = self._job(snapshot)
        return (job.name, job.status, job.lost, job.submitter, job.submitted)

    def _notices_state(self, snapshot: Snapshot) -> object:
        job = self._job(snapshot)
        return (self._reading(), job.status, job.lost, job.reason)

    def _title(self, live: Live, snapshot: Snapshot) -> None:
        job, kit = self._job(snapshot), self._web.flare.kit
        with box("title"):
            with box("title-text"):
                with box("title-line"):
                    Text("h1", job.name)
                    chip(status(job), "status")
                with box("soft"):
                    Text("span", f"launched by {job.submitter or 'somebody'}, ")
                    launched = attributes(Text("span"), title=moment(job.submitted))
                    live.clock(launched, lambda now: ago(job.submitted, now))
                    attributes(Text("span", f" - {short(job.job_id)}", "mono"), title=job.job_id, data_testid="job-id")
            with box("actions"):
                if kit.may("submit_job"):
                    link_button("Clone", f"/launch?clone={job.job_id}", "content_copy", name="clone")
                if not is_over(job) and kit.may("manage_job", job.submitter):
                    button("Abort", self._dialog.open, "block", "danger", "abort")

    def _question(self) -> ui.dialog:
        """Whether to abort; one for the page, so that a double click does not ask twice."""
        with ui.dialog() as dialog, box("card dialog"):  # a div: all else is deaf to clicks there
            Text("h2", "Abort this job?")
            Text("p", "Training stops at all sites. The rounds that are over stay in the result.")
            with box("actions"):
                button("Keep it running", dialog.close, name="abort-no")
                button("Abort", self._abort, "block", "danger", "abort-yes")
        return dialog

    async def _abort(self) -> None:
        self._dialog.close()
        ui.notify("Asking FLARE to abort it ...")
        try:
            await run_in_threadpool(self._web.flare.abort, self._job_id)
            ui.notify("FLARE is aborting the job.", type="positive")
        except BundleError as error:
            ui.notify(str(error), type="negative", multi_line=True, timeout=0, close_button="OK")

    def _notices(self, snapshot: Snapshot) -> None:
        job, reading = self._job(snapshot), self._reading()
        errors = reading.report.errors if reading and reading.report else []
        if job.reason and job.reason not in errors:
            notice("bad" if is_over(job) else "info", job.reason, name="reason")
        if reading and reading.problem:
            notice("bad" if is_over(job) else "warn", "The report cannot be read", [reading.problem], "report-problem")
        if not reading or not reading.report:
            return
        report = reading.report
        if report.errors:
            hidden = len(report.errors) - MOST_ERRORS
            more = [f"and {hidden} more; the metrics file has them all"] if hidden > 0 else []
            title = "What went wrong" if is_over(job) else "Something went wrong at a site"
            notice("bad", title, [*report.errors[:MOST_ERRORS], *more], "errors")
        elif reading.final and not report.finished:
            notice("warn", f"The result is {status_line(report)}", name="unfinished")
        if warning := embedded_warning(report):
            notice("warn", warning, name="embedded")
        if report.warnings:
            notice("warn", "Warnings", report.warnings[:MOST_ERRORS], "warnings")
        if lines := left_out_lines(report.left_out):
            notice("warn", "Left out of the data", lines[:MOST_ERRORS], "left-out")
        if lines := note_lines(report):
            notice("info", "How the data were read", lines[:MOST_ERRORS], "data-notes")

    def _progress(self, live: Live, snapshot: Snapshot) -> None:
        if not is_over(self._job(snapshot)):
            live.always(ProgressCard(self._web, self._job_id).update)

    def _result_head(self, snapshot: Snapshot) -> None:
        if is_over(self._job(snapshot)):
            draw_downloads(self._web.flare, self._job_id, self._reading())

    def _result(self, snapshot: Snapshot) -> None:
        if is_over(self._job(snapshot)):
            draw_result(self._reading())

    def _settings_state(self, snapshot: Snapshot) -> object:
        job = self._job(snapshot)
        return (tuple(job.settings.items()), job.sites, job.start_from, self._web.form(job.name))

    def _settings(self, snapshot: Snapshot) -> None:
        job, form = self._job(snapshot), self._web.form(self._job(snapshot).name)
        with card("Changed from the job's defaults"):
            if not job.settings:
                Text("p", "Nothing: it has the job's defaults, or was not launched from a dashboard.", "soft")
            with attributes(box("lines", "dl"), data_testid="settings"):
                for key, setting in job.settings.items():
                    field = form.field(key) if form else None
                    Text("dt", field.label if field else key)
                    default = f"  (default {value(field.default)})" if field else ""
                    Text("dd", value(setting) + default)
        with card("Where and from what"), box("lines", "dl"):
            Text("dt", "Sites")
            Text("dd", ", ".join(job.sites) or "all that were connected")
            Text("dt", "Started from")
            with box("", "dd"):
                earlier = snapshot.job(job.start_from) if job.start_from else None
                if earlier:
                    link(f"{earlier.name} ({short(earlier.job_id)})", f"/session/{earlier.job_id}")
                else:
                    Text("span", job.start_from or "scratch")


def _tab(name: str, symbol: str) -> ui.tab:
    return attributes(ui.tab(name, icon=symbol), data_testid=f"tab-{name.lower()}")
