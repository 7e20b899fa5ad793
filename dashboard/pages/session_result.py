# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a job that ended came to: scores, models at sites, what personalising gained, and files to take away."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui
from starlette.concurrency import run_in_threadpool

from bundle.report import held_out, personal
from bundle.report.model import Report
from custom.errors import BundleError
from dashboard import charts, tables
from dashboard.flare import Flare
from dashboard.pages.parts import Text, attributes, box, button, card, chart, facts, link_button, loading, table
from dashboard.shared import Reading

ROW_PX, AROUND_PX = 44, 56  # of a chart with a row each


def draw_downloads(flare: Flare, job_id: str, reading: Reading | None) -> None:
    """The facts, and the files."""
    if reading is None or not reading.final:
        loading("Fetching the result from FLARE ...")
        return
    if reading.report is None or not (reading.report.rounds or reading.report.site_names):
        return  # it died before there was anything to take away
    base = f"/session/{job_id}"
    with attributes(card(), data_testid="result"):
        facts(tables.facts(reading.report), "result-facts")
        with attributes(box("actions"), data_testid="downloads"):
            if "final global model" in reading.report.models:
                _model(flare, job_id, "Final model", f"{base}/model", best=False)
            if "best global model" in reading.report.models:
                _model(flare, job_id, "Best model", f"{base}/best-model", best=True)
            link_button("Metrics (JSON)", f"{base}/metrics.json", "download", name="download-json")
            if reading.report.rounds:
                link_button("Rounds (CSV)", f"{base}/rounds.csv", "download", name="download-csv")


def _model(flare: Flare, job_id: str, label: str, address: str, *, best: bool) -> None:
    """A button, and no link, because FLARE may refuse the model: then this page says so, and stays."""

    async def fetch() -> None:
        try:
            await run_in_threadpool(flare.model_file, job_id, best)
        except BundleError as error:
            ui.notify(str(error), type="negative", multi_line=True, timeout=0, close_button="OK")
            return
        ui.download.from_url(address)

    button(label, fetch, "download", name="download-best" if best else "download-model")


def draw_result(reading: Reading | None) -> None:
    """The sections that this job has something for."""
    report = reading.report if reading and reading.final else None
    if report is None:
        return
    header, rows = tables.test_scores(report)
    if rows:
        with card("Test scores over all sites"):
            table(header, rows, "test-scores")
    if report.cross_site:
        _cross_site(report)
    if report.personalization:
        _personal(report.personalization)
    if report.writers:
        _held_out(report)


def _cross_site(report: Report) -> None:
    names = report.cross_scores()
    with card():
        with box("card-head"):
            Text("h2", "Every model at every site")
            metric = ui.select(names, value=names[0]).props("outlined dense options-dense").classes("metric")
            attributes(metric, aria_label="Metric", data_testid="cross-metric")
        drawn = chart(charts.heat_map(report, names[0]), name="heat-map")
        drawn.style(f"height: {AROUND_PX + ROW_PX * len(report.cross_site)}px")

        def redraw() -> None:
            drawn.props["options"] = charts.heat_map(report, str(metric.value))
            drawn.update()

        metric.on_value_change(redraw)


def _personal(personalization: dict[str, object]) -> None:
    with attributes(card("Personal models"), data_testid="personalization"):
        Text("p", personal.title(personalization), "soft")
        gains = _gains(personalization)
        if gains:
            drawn = chart(charts.gains(gains, "what each site gained by personalising"), name="gains")
            drawn.style(f"height: {AROUND_PX + ROW_PX * len(gains)}px")
        header, *rows = personal.table_rows(personalization)
        if rows:
            table(header, rows, "personal-table")
        _sentences(personal.notes(personalization))


def _gains(personalization: dict[str, object]) -> list[tuple[str, float]]:
    """In percentage points, by site."""
    found = []
    sites = personalization["sites"]
    for site, row in sites.items() if isinstance(sites, dict) else ():
        before, after = (personal.accuracy(row, kind) for kind in ("global", "personal"))
        if before is not None and after is not None:
            found.append((site, 100 * (after - before)))
    return found


def _held_out(report: Report) -> None:
    writers = report.writers
    if writers is None:
        return
    with attributes(card(held_out.title(writers).capitalize()), data_testid="held-out"):
        if writers.curve:
            chart(charts.held_out(report), name="held-out-curve")
        if summary := writers.result["summary"]:
            header, *rows = held_out.table_rows(summary)
            table(header, rows, "held-out-table")
        _sentences(held_out.notes(report, writers))


def _sentences(lines: Sequence[str]) -> None:
    for line in lines:
        Text("p", line)
