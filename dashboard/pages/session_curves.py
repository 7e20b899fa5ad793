# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The curves of a job, which grow while it runs, and the table of its rounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from nicegui import ui

from dashboard import charts, tables
from dashboard.pages.parts import ROWS, Text, attributes, box, card, chart, fill, loading, table
from dashboard.shared import Reading
from dashboard.system import Snapshot

MOST_KEPT = 64


@lru_cache(MOST_KEPT)
def _curves(reading: Reading, metric: str) -> dict[str, Any]:
    """Computed once for all browsers that look at the job."""
    return charts.curves(reading.report, metric) if reading.report else {}


@lru_cache(MOST_KEPT)
def _traffic(reading: Reading) -> dict[str, Any]:
    return charts.traffic(reading.report) if reading.report else {}


@lru_cache(MOST_KEPT)
def _rounds(reading: Reading, metric: str) -> tuple[list[str], list[list[str]]]:
    return tables.rounds(reading.report, metric) if reading.report else ([], [])


class Curves:
    """Two charts and a table, drawn when there is a round, and from then on changed in place.

    Args:
        newest: the newest reading of the job's report.
    """

    def __init__(self, newest: Callable[[], Reading | None]) -> None:
        self._newest = newest
        self._place = box("stack")
        self._shown: tuple[Reading | None, str] | None = None
        self._metric: ui.select | None = None
        self._rounds: ui.table | None = None
        self._columns: tuple[object, ...] = ()

    def update(self, snapshot: Snapshot) -> None:
        """Shows the newest reading."""
        if self._place.is_deleted:
            return
        reading = self._newest()
        if reading is None or reading.report is None or not reading.report.rounds:
            self._wait(reading)
            return
        if self._metric is None:
            self._draw(reading)
        self._offer(charts.metrics(reading.report))
        self._redraw()

    def _offer(self, names: list[str]) -> None:
        """The first round has no score of the validation yet, so there may be more to choose from later."""
        if self._metric is not None and self._metric.options != names:
            chosen = self._metric.value if self._metric.value in names else next(iter(names), None)
            self._metric.set_options(names, value=chosen)

    def _wait(self, reading: Reading | None) -> None:
        if self._shown != (reading, ""):
            self._shown = (reading, "")
            self._place.clear()
            with self._place:
                if reading is None:
                    loading("Reading the rounds ...")
                elif reading.report is not None:
                    attributes(Text("p", "No round is over.", "soft"), data_testid="no-rounds")

    def _draw(self, reading: Reading) -> None:
        names = charts.metrics(reading.report) if reading.report else []
        self._place.clear()
        with self._place:
            with box("grid-2"):
                with card(classes="wide"):
                    with box("card-head"):
                        Text("h2", "Curves")
                        self._metric = ui.select(names, value=names[0] if names else None, on_change=self._redraw)
                        self._metric.props("outlined dense options-dense").classes("metric")
                        attributes(self._metric, aria_label="Metric", data_testid="metric")
                    self._curve = chart({}, name="curves")
                with card("Bytes of each round"):
                    self._bytes = chart({}, name="bytes")
            with card("Rounds"):
                self._table = box("", "div")

    def _redraw(self) -> None:
        reading = self._newest()
        metric = str(self._metric.value or "") if self._metric else ""
        if reading is None or reading.report is None or self._shown == (reading, metric):
            return
        self._shown = (reading, metric)
        _show(self._curve, _curves(reading, metric))
        _show(self._bytes, _traffic(reading))
        self._show_rounds(*_rounds(reading, metric))

    def _show_rounds(self, header: list[str], rows: list[list[str]]) -> None:
        """In the same table, unless a site came late, or there are enough rounds for pages now."""
        columns = (*header, len(rows) > ROWS)
        if self._rounds is not None and columns == self._columns:
            fill(self._rounds, rows)
            return
        self._columns = columns
        self._table.clear()
        with self._table:
            self._rounds = table(header, rows, "rounds")


def _show(element: ui.echart, options: dict[str, Any]) -> None:
    element.props["options"] = options
    element.update()
