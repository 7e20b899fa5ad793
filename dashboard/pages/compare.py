# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Two or more jobs side by side: their curves, what was set differently, and what they came to."""

from __future__ import annotations

from dataclasses import dataclass

from nicegui import ui
from starlette.requests import Request

from bundle.report.model import Report
from bundle.report.wording import human_bytes, human_seconds, number
from dashboard import charts, tables
from dashboard.pages.frame import frame
from dashboard.pages.live import reading_state
from dashboard.pages.parts import (
    Text,
    attributes,
    box,
    card,
    chart,
    chip,
    empty,
    link,
    loading,
    not_read,
    notice,
    table,
)
from dashboard.shared import Reading
from dashboard.system import Job, Snapshot
from dashboard.web import Web
from dashboard.words import short, status, value

MOST = 8


@dataclass(frozen=True)
class Compared:
    """One of the jobs."""

    job: Job
    reading: Reading | None

    @property
    def label(self) -> str:
        """Name and the beginning of the id."""
        return f"{self.job.name} {short(self.job.job_id)}"

    @property
    def report(self) -> Report | None:
        """None until it is read, or if it cannot be."""
        return self.reading.report if self.reading else None


def add_page(web: Web) -> None:
    """Adds `/compare?jobs=ID,ID`."""

    @ui.page("/compare")
    def compare(request: Request, jobs: str = "") -> None:
        asked = tuple(dict.fromkeys(filter(None, jobs.split(","))))[:MOST]
        chosen: dict[str, str] = {}  # the metric outlives a redraw

        def compared(snapshot: Snapshot) -> tuple[Compared, ...]:
            found = [job for job_id in asked if (job := snapshot.job(job_id))]
            return tuple(Compared(job, web.reports.latest(job.job_id)) for job in found)

        def state(snapshot: Snapshot) -> object:
            readings = tuple((one.job.job_id, one.job.status, one.reading) for one in compared(snapshot))
            return (reading_state(snapshot), readings)

        with frame(web, request, "Compare", "Sessions") as live:
            with box("title"):
                Text("h1", "Compare")
            live.part(state, lambda snapshot: _draw(web, compared(snapshot), snapshot, chosen))


def _draw(web: Web, jobs: tuple[Compared, ...], snapshot: Snapshot, chosen: dict[str, str]) -> None:
    if not snapshot.taken:
        not_read(snapshot)
        return
    if not jobs:
        empty("ssid_chart", "Nothing to compare", "Choose two or more jobs in the list of sessions.", "no-jobs")
        link("All sessions", "/sessions")
        return
    for one in jobs:
        if one.reading and one.reading.problem:
            notice("warn", f"{one.label} cannot be read", [one.reading.problem])
    if any(one.reading is None for one in jobs):
        loading("Fetching results from FLARE ...")
    _curves(jobs, chosen)
    _scores(jobs)
    _settings(web, jobs)


def _curves(jobs: tuple[Compared, ...], chosen: dict[str, str]) -> None:
    drawable = [(one.label, one.report) for one in jobs if one.report and one.report.rounds]
    names = list(dict.fromkeys(name for _, report in drawable for name in charts.metrics(report)))
    if not names:
        return
    start = chosen.get("metric", names[0])
    with card():
        with box("card-head"):
            Text("h2", "Curves")
            metric = ui.select(names, value=start if start in names else names[0])
            metric.props("outlined dense options-dense").classes("metric")
            attributes(metric, aria_label="Metric", data_testid="metric")
        drawn = chart(charts.comparison(drawable, str(metric.value)), "tall", "comparison")

        def redraw() -> None:
            chosen["metric"] = str(metric.value)
            drawn.props["options"] = charts.comparison(drawable, str(metric.value))
            drawn.update()

        metric.on_value_change(redraw)


def _scores(jobs: tuple[Compared, ...]) -> None:
    reports = [one.report for one in jobs if one.report]
    names = list(dict.fromkeys(name for report in reports for name in charts.metrics(report)))
    header = ["job", "best", *(f"{name}, last" for name in names), "rounds", "up", "down", "time"]
    rows = []
    for one in jobs:
        if (report := one.report) is not None:
            best = number(report.best["value"]) if report.best else "-"
            moved = [human_bytes(report.total_bytes(way) or 0) for way in ("upload_bytes", "download_bytes")]
            costs = [str(len(report.rounds)), *moved, human_seconds(report.seconds)]
            rows.append([one.label, best, *tables.final_scores(report, names), *costs])
    with card("Scores"):
        with attributes(box("links"), data_testid="compared"):
            for one in jobs:
                chip(status(one.job))
                link(one.label, f"/session/{one.job.job_id}")
        if rows:
            table(header, rows, "scores")


def _settings(web: Web, jobs: tuple[Compared, ...]) -> None:
    """Those that are not the same in all of the jobs."""
    rows = []
    for key in dict.fromkeys(key for one in jobs for key in one.job.settings):
        values = [_setting(web, one.job, key) for one in jobs]
        if len(set(values)) > 1:
            rows.append([key, *values])
    for label, texts in (
        ("job", [one.job.name for one in jobs]),
        ("sites", [", ".join(one.job.sites) or "all" for one in jobs]),
        ("started from", [short(one.job.start_from) or "scratch" for one in jobs]),
    ):
        if len(set(texts)) > 1:
            rows.append([label, *texts])
    with card("Settings that differ"):
        if rows:
            table(["setting", *(one.label for one in jobs)], rows, "differences", texts=len(jobs) + 1)
        else:
            Text("p", "None that the dashboard knows of.", "soft")


def _setting(web: Web, job: Job, key: str) -> str:
    if key in job.settings:
        return value(job.settings[key])
    form = web.form(job.name) if job.settings else None  # what was not launched here may have any value
    field = form.field(key) if form else None
    return f"{value(field.default)} (default)" if field else "not known"
