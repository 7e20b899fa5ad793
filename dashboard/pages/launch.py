# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Launching: choose a job, look at its settings, and start it."""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import replace

from nicegui import ui
from nicegui.element import Element
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from bundle.jobs import read_job
from custom.errors import BundleError
from dashboard.catalog import JobForm, form_values
from dashboard.launch import Request as Launch
from dashboard.launch import launch
from dashboard.pages.fields import Settings
from dashboard.pages.frame import frame
from dashboard.pages.live import Live
from dashboard.pages.parts import Text, attributes, box, button, card, icon, link, loading, notice
from dashboard.pages.sites import Sites
from dashboard.pages.start_from import StartFrom
from dashboard.system import Job, Snapshot
from dashboard.web import Web
from dashboard.words import short

ADDRESS = re.compile(r",? https?://[^\s);]+")
LISTED_TRIES, LISTED_EVERY_S = 40, 0.2


def add_page(web: Web) -> None:
    """Adds `/launch`, `/launch?job=NAME` and `/launch?clone=ID`."""

    @ui.page("/launch")
    async def launch_page(request: Request, job: str = "", clone: str = "") -> None:
        with frame(web, request, "Launch", "Launch") as live:
            with box("title"):
                Text("h1", "Launch training")
            place = box("stack")
        with place:
            if not (web.loaded_forms() and (web.flare.snapshot().taken or not clone)):
                loading("Reading the jobs; this takes a few seconds after a start ...")
                await ui.context.client.connected()
            try:
                forms = await web.forms()
            except BundleError as error:
                place.clear()
                notice("bad", "The jobs cannot be read", [str(error)], "forms-problem")
                return
            while clone and not web.flare.snapshot().taken and not ui.context.client.is_deleted:
                await asyncio.sleep(LISTED_EVERY_S)
            if ui.context.client.is_deleted:
                return  # the browser has gone elsewhere meanwhile
            place.clear()
            _content(web, live, forms, job, clone)


def _content(web: Web, live: Live, forms: tuple[JobForm, ...], job: str, clone: str) -> None:
    earlier = web.flare.snapshot().job(clone) if clone else None
    name = earlier.name if earlier else job
    form = next((form for form in forms if form.name == name), None)
    if clone and not form:
        what = f"{earlier.name} is no job of this bundle" if earlier else "There is no such job any more"
        notice("warn", f"{what}, so it cannot be cloned.", ["Choose one of these:"], "no-clone")
    if form:
        _Form(web, live, form, earlier)
    else:
        _cards(forms)


def _cards(forms: tuple[JobForm, ...]) -> None:
    Text("p", "What should the sites train?", "soft")
    with box("cards jobs"):
        for form in forms:
            anchor = attributes(box("card job", "a"), href=f"/launch?job={form.name}", data_testid=f"job-{form.name}")
            with anchor:
                with box("card-head"):
                    Text("h2", form.title)
                    icon("chevron_right")
                Text("p", _without_addresses(form.description))
                if form.name != form.title:
                    Text("span", form.name, "mono soft")


def _without_addresses(text: str) -> str:
    """The sources that a job names, without where to find them: that is in its README."""
    return ADDRESS.sub("", text)


class _Form:
    """The form of one job; one token, so that it launches one job however often it is sent."""

    def __init__(self, web: Web, live: Live, form: JobForm, earlier: Job | None) -> None:
        self._web, self._form = web, form
        self._token = secrets.token_hex(16)
        self._tried: Launch | None = None
        with attributes(box("stack"), data_testid="form"):
            with box("back"):
                link("All jobs", "/launch", name="all-jobs")
            with card():
                Text("h2", form.title)
                Text("p", _without_addresses(form.description))
                values, refused = form_values(earlier, form) if earlier else ({}, [])
                if earlier:
                    Text("p", f"Settings are those of {earlier.name} {short(earlier.job_id)}.", "soft")
                if refused:
                    notice("warn", "But for these, which this form does not take:", refused, "not-cloned")
            with card("Settings"):
                self._settings = Settings(form.fields, values)
            with box("grid-2 even"):
                with card("Sites"):
                    self._sites = Sites(live, earlier.sites if earlier else (), read_job(form.name).min_clients)
                with card("Start from"):
                    self._start_from = StartFrom(web, live, form, earlier.start_from if earlier else "")
            self._problem = attributes(box(""), role="alert")
            with box("actions end sticky"):
                self._busy = box("loading")
                self._busy.visible = False
                with self._busy:
                    ui.spinner(size="22px", color=None)
                    Text("span", "Packing the job and sending it to FLARE ...")
                self._button = button("Launch", self._launch, "rocket_launch", "primary big", "launch")
        live.always(self._allow)

    def _allow(self, snapshot: Snapshot) -> None:
        """No launching into a system that cannot be reached, or twice."""
        allowed = not (snapshot.problem or not snapshot.taken or self._busy.visible)
        if self._button.enabled != allowed:
            self._button.set_enabled(allowed)

    async def _launch(self) -> None:
        if self._busy.visible:
            return
        self._problem.clear()
        problems = [*self._settings.problems(), *filter(None, (self._sites.problem(), self._start_from.problem()))]
        if problems:
            self._say("Please look at these first", problems)
            return
        self._wait(True)
        try:
            job_id = await run_in_threadpool(launch, self._request(), await self._web.forms(), self._web.flare)
        except BundleError as error:
            self._wait(False)
            self._refused(error)
            return
        except Exception:
            self._wait(False)
            raise
        await self._listed(job_id)
        ui.navigate.to(f"/session/{job_id}")

    def _request(self) -> Launch:
        """With the token of the last try as long as nothing was changed: that one may have got through after all."""
        form, settings = self._form.name, self._settings.values()
        request = Launch(form, settings, self._sites.chosen(), self._start_from.chosen(), self._token)
        if self._tried not in (None, request):
            self._token = secrets.token_hex(16)
            request = replace(request, token=self._token)
        self._tried = request
        return request

    async def _listed(self, job_id: str) -> None:
        """Waits until it is in the snapshot: before that its page would say that there is no such job."""
        for _ in range(LISTED_TRIES):
            if self._web.flare.snapshot().job(job_id):
                return
            await asyncio.sleep(LISTED_EVERY_S)

    def _wait(self, busy: bool) -> None:
        self._busy.visible = busy
        self._button.set_enabled(not busy)

    def _refused(self, error: BundleError) -> None:
        """At the field that it is about, and above the button in any case."""
        self._settings.show_problem(error)
        field = self._form.field(error.key)
        text = str(error).replace(f"{error.key}: ", f"{field.label}: ", 1) if field else str(error)
        self._say("The job was not launched", [text])

    def _say(self, title: str, lines: list[str]) -> None:
        self._problem.clear()
        with self._problem:
            shown: Element = notice("bad", title, lines, "launch-problem")
        ui.run_javascript(f"getHtmlElement({shown.id}).scrollIntoView({{block: 'center'}})")
