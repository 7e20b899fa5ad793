# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Results that were downloaded already; the download itself: test_flare.py."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import dashboard.results
from bundle.admin_kit import read_kit
from bundle.connection import Connection
from bundle.report.model import Report
from custom.errors import BundleError
from custom.progress import append
from dashboard.results import FOLDER, Results
from dashboard.system import ABORTED, COMPLETED, Job
from tests.bundle.kits import Authority, write_kit

DONE = Job("70e0cc18-e9da-40c4-b949-52c1979c2c39", "mnist", COMPLETED, seconds=20.0)
TRACEBACK = """2026-11-21 14:26:07,583 - worker_process - ERROR - failed
Traceback (most recent call last):
  File "/poc/site-2/app/custom/custom/executors/trainer.py", line 80, in __init__
    self.fit(model)
TypeError: no such argument: nonsense
"""


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(Connection(read_kit(write_kit(tmp_path / "kit", Authority("a"), port=1))), tmp_path / "cache")


def workspace_of(results: Results, job: Job) -> Path:
    workspace = results._folder / job.job_id / "workspace"
    (workspace / "app_server").mkdir(parents=True)
    return workspace


def write_rounds(workspace: Path, planned: int, done: int) -> None:
    append(workspace, "job_started", job="mnist", sites=["site-1"], workflows=["train"])
    for number in range(1, done + 1):
        site = {"samples": 10.0, "received": {"val_accuracy": 0.1 * number}, "train": {"train_loss": 1.0}}
        append(workspace, "round", round=number, num_rounds=planned, task="train", seconds=1.0, sites={"site-1": site})


def test_a_job_that_completed_is_read_once(results: Results) -> None:
    workspace = workspace_of(results, DONE)
    write_rounds(workspace, 2, 2)
    append(workspace, "workflow_finished", workflow="train")
    append(workspace, "job_ended")
    report = results.report(DONE)
    assert (report.status, len(report.rounds), report.errors) == ("completed", 2, [])
    assert results.report(DONE) is report


def test_a_job_that_was_aborted_says_so_and_not_what_followed_from_it(results: Results) -> None:
    job = replace(DONE, status=ABORTED)
    workspace = workspace_of(results, job)
    write_rounds(workspace, 5, 2)
    (workspace / "log.txt").write_text("2026-11-21 14:31:02,314 - ServerRunner - ERROR - aborting\n")
    report = results.report(job)
    assert (report.errors, report.status, len(report.rounds)) == (["it was aborted"], "aborted", 2)


def test_a_site_that_could_not_make_its_classes_is_named_with_the_cause(results: Results) -> None:
    job = replace(DONE, status="FINISHED:ABNORMAL")
    workspace = workspace_of(results, job)
    (workspace / "log.txt").write_text("2026-11-21 14:26:10,241 - HandleDeadJobCommand - WARNING - missing job\n")
    (workspace / "site-2").mkdir()
    (workspace / "site-2" / "error_log.txt").write_text(TRACEBACK)
    report = results.report(job)
    assert report.status == "failed"
    assert report.job == "mnist"
    place = "custom/executors/trainer.py line 80 (see site-2/error_log.txt)"
    assert report.errors[0] == f"TypeError: no such argument: nonsense, raised in {place}"


def test_a_job_that_never_started_has_flares_reason_first(results: Results) -> None:
    job = replace(
        DONE, status="FINISHED:FAILED_TO_RUN", seconds=None, reason="it could not be sent to site-2: no reply"
    )
    (results._folder / job.job_id / "job").mkdir(parents=True)
    (results._folder / job.job_id / "workspace" / "site-2").mkdir(parents=True)
    (results._folder / job.job_id / "workspace" / "site-2" / "error_log.txt").write_text("")
    report = results.report(job)
    assert (report.status, report.errors) == ("failed", [job.reason])


def test_models(results: Results) -> None:
    workspace = workspace_of(results, DONE)
    with pytest.raises(BundleError, match="the job left no global model"):
        results.model(DONE.job_id)
    (workspace / "app_server" / "FL_global_model.pt").write_bytes(b"last")
    assert results.model(DONE.job_id).read_bytes() == b"last"
    with pytest.raises(BundleError, match="the job left no best global model"):
        results.model(DONE.job_id, best=True)
    (workspace / "app_server" / "best_FL_global_model.pt").write_bytes(b"best")
    assert results.model(DONE.job_id, best=True).read_bytes() == b"best"


def test_room_is_made_for_what_was_used_last(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.results.MOST_RESULTS", 3)
    jobs = [replace(DONE, job_id=f"{index}{DONE.job_id[1:]}") for index in range(5)]
    for age, job in enumerate(jobs):
        workspace_of(results, job)
        os.utime(results._folder / job.job_id, (time.time() - 100 * (5 - age),) * 2)
    results.folder(jobs[0].job_id)
    results._make_room()
    left = sorted(folder.name for folder in results._folder.iterdir())
    assert left == sorted([jobs[0].job_id, jobs[3].job_id, jobs[4].job_id])

    monkeypatch.setattr("dashboard.results.MOST_BYTES", 1000)
    (results._folder / jobs[4].job_id / "workspace" / "model.pt").write_bytes(bytes(2000))
    results.folder(jobs[3].job_id)
    results._make_room()
    assert sorted(folder.name for folder in results._folder.iterdir()) == [jobs[0].job_id, jobs[3].job_id]


def test_what_is_being_read_is_not_removed(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of a folder that is gone would be an empty one."""
    monkeypatch.setattr("dashboard.results.MOST_RESULTS", 1)
    begun, read = threading.Event(), threading.Event()
    other = replace(DONE, job_id=f"0{DONE.job_id[1:]}")
    for job in (DONE, other):
        write_rounds(workspace_of(results, job), 2, 2)
    read_report = dashboard.results.read_report

    def slowly(folder: Path, job_id: str) -> Report:
        begun.set()
        assert read.wait(60)
        return read_report(folder, job_id)

    monkeypatch.setattr("dashboard.results.read_report", slowly)
    with ThreadPoolExecutor() as threads:
        report = threads.submit(results.report, DONE)
        assert begun.wait(60)
        assert results._lock_of(DONE.job_id).locked()
        os.utime(results._folder / other.job_id, (time.time() + 100,) * 2)
        results._make_room()
        read.set()
        assert len(report.result().rounds) == 2
    results._make_room()
    assert [folder.name for folder in results._folder.iterdir()] == [other.job_id]


def test_a_job_that_was_deleted_leaves_nothing(results: Results) -> None:
    workspace = workspace_of(results, DONE)
    write_rounds(workspace, 1, 1)
    results.report(DONE)
    results.forget(DONE.job_id)
    assert not list(results._folder.iterdir())
    with pytest.raises(BundleError, match="does not answer"):
        results.report(DONE)


def test_a_download_that_fails_leaves_no_half_result(results: Results, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not answer"):
        results.folder(DONE.job_id)
    assert list((tmp_path / "cache" / FOLDER).iterdir()) == []
