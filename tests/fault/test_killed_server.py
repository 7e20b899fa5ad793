# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A provisioned deployment: a site's job process is killed, the server is killed, and the jobs are continued."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from tests.fault import sites
from tests.fault.ended_early import (
    FINAL,
    SETTINGS,
    TOLERANCE,
    difference,
    kill,
    processes_of_job,
    wait_for_rounds,
)
from tests.jobs.deployment import Deployment, provisioned
from tests.jobs.flare import export, simulate

pytestmark = [pytest.mark.e2e, pytest.mark.fault]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with provisioned("secure", tmp_path_factory.mktemp("killed")) as system:
        yield system


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With rounds of some seconds: so long it takes to log in and to abort it."""
    return export("hello-pt", tmp_path_factory.mktemp("job") / "job", *SETTINGS, "train.local_epochs=8")


@pytest.fixture(scope="module")
def expected(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The final model of the job when nothing happens to it."""
    folder = tmp_path_factory.mktemp("expected")
    simulate(job, folder, 2, 2, folder)
    return folder / "ws" / "server" / "simulate_job" / FINAL


def check_end(system: Deployment, origin: str, told: str, expected: Path, tmp_path: Path) -> None:
    """The continuation completes, its report says what it is, and its model is that of the whole job."""
    new = sites.continuation(told)
    assert sites.wait(system, new) == "FINISHED:COMPLETED"
    report = sites.report(system, new, tmp_path)
    assert report["status"] == "completed"
    assert report["continued"]["job_id"] == origin
    assert [row["round"] for row in report["rounds"]] == list(range(report["continued"]["round"] + 1, 5))
    final = next(path for path in sites.models(system, new, tmp_path) if path.name == expected.name)
    assert difference(final, expected) <= TOLERANCE


def test_a_job_process_of_a_site_is_killed(system: Deployment, job: Path, expected: Path, tmp_path: Path) -> None:
    job_id = sites.submit(system, job)
    wait_for_rounds(system.folder / system.server / job_id / "progress.jsonl", 1)
    site = psutil.Process(system.processes["site-1"].pid)
    kill([child for child in site.children(recursive=True) if job_id in " ".join(child.cmdline())])
    sites.wait(system, job_id)
    code, told = sites.resume(system, job_id, tmp_path)
    assert code == 0, told
    check_end(system, job_id, told, expected, tmp_path)


@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_a_job_with_a_path_for_a_name_is_not_continued(
    system: Deployment, job: Path, tmp_path: Path, kind: str
) -> None:
    """FLARE takes it. A continuation is written by the operator's account: here it would be into a package's folder."""
    odd, victim, marker = tmp_path / "job", tmp_path / "victim", tmp_path / "executed"
    shutil.copytree(job, odd)
    victim.mkdir()
    (victim / "meta.json").write_text("the operator's")
    (odd / "app").rename(odd / "usercustomize")
    (odd / "usercustomize" / "__init__.py").write_text(f"open({str(marker)!r}, 'a').close()\n")
    meta = json.loads((odd / "meta.json").read_text())
    name = str(victim) if kind == "absolute" else f"../../../../../../../..{victim}"
    (odd / "meta.json").write_text(json.dumps({**meta, "name": name, "deploy_map": {"usercustomize": ["@ALL"]}}))
    job_id = sites.submit(system, odd)
    wait_for_rounds(system.folder / system.server / job_id / "progress.jsonl", 1)
    sites.abort(system, job_id)
    sites.wait(system, job_id)
    code, told = sites.resume(system, job_id, tmp_path)
    assert (code, "[job-name]" in told) == (2, True), told
    assert [path.name for path in victim.iterdir()] == ["meta.json"]
    assert (victim / "meta.json").read_text() == "the operator's"
    assert not marker.exists()


def test_an_aborted_job_leaves_no_process_and_no_half_written_model(
    system: Deployment, job: Path, tmp_path: Path
) -> None:
    job_id = sites.submit(system, job)
    wait_for_rounds(system.folder / system.server / job_id / "progress.jsonl", 1)
    sites.abort(system, job_id)
    sites.wait(system, job_id)
    deadline = time.monotonic() + 60
    while left := processes_of_job(job_id):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    models = [*sites.models(system, job_id, tmp_path / "server"), *system.folder.glob(f"site-*/{job_id}/**/*.pt")]
    assert len(models) >= 3
    for path in models:
        assert torch.load(path, weights_only=True)["model"], path
    seen = [(event["event"], event.get("workflow")) for event in sites.events(system, job_id)]
    assert ("workflow_finished", "pre_train") in seen
    assert ("workflow_finished", "scatter_and_gather") not in seen  # FLARE tells its components that it has


def test_the_server_is_killed(system: Deployment, job: Path, expected: Path, tmp_path: Path) -> None:
    job_id = sites.submit(system, job)
    wait_for_rounds(system.folder / system.server / job_id / "progress.jsonl", 2)
    kill([psutil.Process(system.processes[system.server].pid)])
    code, told = sites.resume(system, job_id, tmp_path)
    assert (code, "does not answer" in told) == (2, True), told

    (system.folder / system.server / "log.txt").unlink()
    system.start(system.server)
    system.wait_for("Server started", [system.server])
    code, told = sites.resume(system, job_id, tmp_path)
    assert code == 0, told
    assert "stays listed as RUNNING" in told
    check_end(system, job_id, told, expected, tmp_path)
