# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Metas as FLARE 2.9.0 gave them in a POC, shortened."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.metas import duration, to_job

STARTED = datetime(2026, 11, 21, 14, 26, 8, tzinfo=UTC)
META: dict[str, Any] = {
    "name": "mnist",
    "deploy_map": {"app": ["@ALL"]},
    "custom_props": {
        "launched": {"job": "mnist", "settings": {"train.local_epochs": 2}, "start_from": "old.pt", "sites": []}
    },
    "job_id": "70e0cc18-e9da-40c4-b949-52c1979c2c39",
    "submit_time": 1795271150.64,
    "start_time": STARTED.isoformat(),
    "duration": "0:00:35.348405",
    "status": "RUNNING",
    "submitter_name": "ann@clinic.org",
    "schedule_history": ["2026-11-21 14:26:07: scheduled"],
    "job_deploy_detail": ["server: OK", "site-1: OK"],
}


def test_what_was_launched_is_read_back() -> None:
    job = to_job(META)
    assert (job.job_id, job.name, job.status, job.submitter) == (META["job_id"], "mnist", "RUNNING", "ann@clinic.org")
    assert (job.submitted, job.seconds) == (1795271150.64, 35.348405)
    assert (dict(job.settings), job.start_from, job.sites) == ({"train.local_epochs": 2}, "old.pt", ())
    assert (job.reason, job.lost, job.launched_here) == ("", False, True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
LAUNCHED = st.fixed_dictionaries({}, optional=dict.fromkeys(META["custom_props"]["launched"], JSON)) | JSON


PROPS = st.fixed_dictionaries({"launched": LAUNCHED}) | JSON
METAS = st.fixed_dictionaries({"custom_props": PROPS}, optional=dict.fromkeys(META.keys() - {"custom_props"}, JSON))


@given(METAS)
def test_no_meta_is_so_odd_that_it_cannot_be_shown(meta: dict[str, Any]) -> None:
    """One that could not would keep all jobs from the page."""
    job = to_job(META | meta, server_started=0.0)
    assert all(isinstance(site, str) for site in job.sites)
    datetime.fromtimestamp(job.submitted, UTC)


def test_a_job_that_others_submitted() -> None:
    meta = {name: value for name, value in META.items() if name != "custom_props"}
    job = to_job({**meta, "deploy_map": {"app": ["server", "site-2", "site-1"]}})
    assert (dict(job.settings), job.start_from, job.sites) == ({}, "", ("site-1", "site-2"))
    assert not job.launched_here


@pytest.mark.parametrize("odd", [{}, {"custom_props": "text", "deploy_map": [], "submit_time": "?", "start_time": "?"}])
def test_a_meta_with_little_in_it(odd: dict[str, Any]) -> None:
    job = to_job({"job_id": "x", "status": "SUBMITTED", **odd})
    assert (job.job_id, job.sites, job.seconds, job.submitted) == ("x", (), None, 0.0)


def test_a_job_that_the_server_lost_when_it_was_restarted() -> None:
    began = STARTED.timestamp()
    assert not to_job(META, server_started=began - 1).lost
    lost = to_job(META, server_started=began + 1)
    assert lost.lost
    assert lost.seconds is None
    assert lost.reason.startswith("FLARE's server was restarted while the job ran")
    assert not to_job({**META, "status": "FINISHED:COMPLETED"}, server_started=began + 1).lost


@pytest.mark.parametrize(
    ("status", "history", "detail", "says"),
    [
        (
            "SUBMITTED",
            ["2026-11-21 14:30:43: connected sites (2) < min_sites (3)"],
            [],
            "it waits: 2 of its sites are connected, and it needs 3",
        ),
        (
            "SUBMITTED",
            ["2026-11-21 14:30:43: missing required site site-9"],
            [],
            "it waits: missing required site site-9",
        ),
        ("SUBMITTED", [], [], ""),
        (
            "FINISHED:CAN_NOT_SCHEDULE",
            [
                "2026-11-21 14:30:43: connected sites (1) < min_sites (2)",
                "2026-11-21 15:30:43: exceeded max schedule count 10",
            ],
            [],
            "FLARE gave up starting it: 1 of its sites is connected, and it needs 2",
        ),
        (
            "FINISHED:FAILED_TO_RUN",
            ["2026-11-21 14:30:43: scheduled"],
            ["server: OK", "site-1: OK", "site-2: user is not authorized"],
            "it could not be sent to site-2: user is not authorized",
        ),
        ("FINISHED:FAILED_TO_RUN", [], [], "FLARE could not start it, and says why only in its server's own log"),
        ("FINISHED:COMPLETED", ["2026-11-21 14:30:43: connected sites (2) < min_sites (3)"], [], ""),
    ],
)
def test_why_a_job_does_not_run(status: str, history: list[str], detail: list[str], says: str) -> None:
    assert to_job({**META, "status": status, "schedule_history": history, "job_deploy_detail": detail}).reason == says


def test_durations_as_python_writes_them() -> None:
    assert duration("0:00:35.5") == 35.5
    assert duration("1:02:03") == 3723.0
    assert duration("2 days, 0:00:01") == 172801.0
    assert [duration(text) for text in ("N/A", "", None, 3)] == [None] * 4
