# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""All jobs of FLARE's store, to look at, to filter and to compare."""

from __future__ import annotations

import time
from typing import Any

from nicegui import events, ui
from starlette.requests import Request

from dashboard.pages.frame import frame
from dashboard.pages.live import Live, reading_state
from dashboard.pages.parts import TOGGLE, Text, attributes, box, button, empty, link_button, not_read
from dashboard.system import Job, Snapshot
from dashboard.web import Web
from dashboard.words import Mark, ago, elapsed, is_over, moment, short, status

A_PAGE = 25
AGES_S = 5.0
FEWEST_TO_COMPARE, MOST_TO_COMPARE = 2, 8
GROUPS = {"all": "All", "active": "Active", "good": "Completed", "other": "Others"}
COLUMNS: list[dict[str, Any]] = [
    {"name": "name", "label": "Job", "field": "name", "align": "left", "sortable": True},
    {"name": "status", "label": "Status", "field": "status", "align": "left", "sortable": True},
    {"name": "submitted", "label": "Launched", "field": "submitted", "align": "left", "sortable": True},
    {"name": "duration", "label": "Duration", "field": "seconds", "align": "right", "sortable": True},
    {"name": "submitter", "label": "By", "field": "submitter", "align": "left", "sortable": True},
]
# Vue templates: constant, and what they show is escaped by {{ }} or is the value of an attribute.
SLOTS = {
    "body-cell-name": """
        <q-td :props="props">
          <a class="link" :href="'/session/' + encodeURIComponent(props.row.id)"
             :data-testid="'session-' + props.row.id">{{ props.row.name }}</a>
          <div class="soft mono">{{ props.row.short }}</div>
        </q-td>""",
    "body-cell-status": """
        <q-td :props="props">
          <span :class="'chip ' + props.row.kind"><i class="material-icons" aria-hidden="true">{{ props.row.icon }}</i
          ><span>{{ props.row.status }}</span></span>
        </q-td>""",
    "body-cell-submitted": """
        <q-td :props="props"><span :title="props.row.moment">{{ props.row.ago }}</span></q-td>""",
    "body-cell-duration": """
        <q-td :props="props">{{ props.row.duration }}</q-td>""",
    "header-selection": """
        <q-checkbox v-model="props.selected" dense aria-label="Select all of this page" />""",
    "body-selection": """
        <q-checkbox v-model="props.selected" dense
                    :aria-label="'Select ' + props.row.name + ' ' + props.row.short" />""",
}


def add_page(web: Web) -> None:
    """Adds `/sessions`."""

    @ui.page("/sessions")
    def sessions(request: Request) -> None:
        with frame(web, request, "Sessions", "Sessions") as live:
            with box("title"):
                Text("h1", "Sessions")
                link_button("Launch training", "/launch", "rocket_launch", "primary", "to-launch")
            live.part(
                lambda snapshot: (bool(snapshot.jobs), reading_state(snapshot)),
                lambda snapshot: _list(live, snapshot),
            )


def _list(live: Live, snapshot: Snapshot) -> None:
    if not snapshot.taken:
        not_read(snapshot)
    elif not snapshot.jobs:
        empty("view_list", "No job has been launched yet", "Launch one, and it is listed here, whoever launched it.")
    else:
        _Sessions(live)


class _Sessions:
    """The table with its tools."""

    def __init__(self, live: Live) -> None:
        with box("tools"):
            self._search = ui.input(placeholder="Filter by name, id or user", on_change=self._filter)
            self._search.props("outlined dense clearable debounce=200").classes("search")
            attributes(self._search, aria_label="Filter by name, id or user", data_testid="filter")
            self._group = ui.toggle(GROUPS, value="all", on_change=self._filter).classes("toggle")
            attributes(self._group.props(TOGGLE), data_testid="status-filter")
            box("spring")
            self._compare = button("Compare", self._open, "ssid_chart", name="compare")
            self._compare.disable()
        self._table = ui.table(
            columns=COLUMNS, rows=[], row_key="id", selection="multiple", pagination=A_PAGE, on_select=self._selected
        )
        self._table.classes("sessions").props('flat rows-per-page-label="Jobs on a page"')
        attributes(self._table, data_testid="sessions", no_data_label="No job is like that")
        for name, template in SLOTS.items():
            self._table.add_slot(name, template)
        self._snapshot, self._drawn = Snapshot(version=-1), 0.0
        live.always(self._update)

    def _update(self, snapshot: Snapshot) -> None:
        """At once when anything has changed; else only durations and ages do, and they have time."""
        if snapshot.version != self._snapshot.version or time.monotonic() - self._drawn > AGES_S:
            self._snapshot, self._drawn = snapshot, time.monotonic()
            self._filter()

    def _filter(self) -> None:
        word, now = (self._search.value or "").strip().lower(), time.time()
        rows = [_row(job, self._snapshot, now) for job in self._snapshot.jobs if self._shows(job, word)]
        if rows != self._table.rows:
            self._table.rows = rows

    def _shows(self, job: Job, word: str) -> bool:
        kind = status(job).kind
        group = "active" if not is_over(job) else "good" if kind == "good" else "other"
        found = not word or any(word in text.lower() for text in (job.name, job.job_id, job.submitter))
        return found and self._group.value in ("all", group)

    def _selected(self, event: events.TableSelectionEventArguments) -> None:
        count = len(event.selection)
        self._compare.set_enabled(FEWEST_TO_COMPARE <= count <= MOST_TO_COMPARE)
        self._compare.text = f"Compare ({count})" if count else "Compare"
        if count > MOST_TO_COMPARE:
            ui.notify(f"At most {MOST_TO_COMPARE} jobs can be compared.", type="warning")

    def _open(self) -> None:
        known = {job.job_id for job in self._snapshot.jobs}
        chosen = [row["id"] for row in self._table.selected if row["id"] in known]
        ui.navigate.to(f"/compare?jobs={','.join(chosen)}")


def _row(job: Job, snapshot: Snapshot, now: float) -> dict[str, Any]:
    mark: Mark = status(job)
    return {
        "id": job.job_id,
        "short": short(job.job_id),
        "name": job.name,
        "status": mark.word,
        "kind": mark.kind,
        "icon": mark.icon,
        "submitter": job.submitter or "-",
        "submitted": job.submitted,
        "ago": ago(job.submitted, now) if now - job.submitted < 86400 else moment(job.submitted),
        "moment": moment(job.submitted),
        "seconds": job.seconds,
        "duration": elapsed(job, snapshot, now),
    }
