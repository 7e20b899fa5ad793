# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A provisioned deployment: a site's job process is killed, the server is killed, and the jobs are continued."""

from __future__ import annotations

import json
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from bundle.provision import Kits, provision
from bundle.templates import Wanted
from tests.fault.ended_early import FINAL, SETTINGS, TOLERANCE, difference, kill, wait_for_rounds
from tests.fault.sites import LEAD, archive_of, ask, submit
from tests.fault.sites import models as saved_models
from tests.jobs.deployment import Deployment, free_port
from tests.jobs.flare import bundle, export, simulate

pytestmark = [pytest.mark.e2e, pytest.mark.fault]
SITES = ("site-1", "site-2")


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    return provision("secure", tmp_path_factory.mktemp("killed") / "kits", Wanted(port=free_port()))


@pytest.fixture(scope="module")
def system(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    work = tmp_path_factory.mktemp("work")
    with Deployment(kits.folder, kits.server, SITES, work / "deployment", work) as system:
        yield system


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export("hello-pt", tmp_path_factory.mktemp("job") / "job", *SETTINGS)


@pytest.fixture(scope="module")
def expected(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The final model of the job when nothing happens to it."""
    folder = tmp_path_factory.mktemp("expected")
    simulate(job, folder, 2, 2, folder)
    return folder / "ws" / "server" / "simulate_job" / FINAL


def resume(kits: Kits, job_id: str, tmp_path: Path) -> tuple[int, str]:
    kit = ("--server-kit", str(kits.folder / kits.server), "--kit", str(kits.folder / LEAD))
    done = bundle("resume", job_id, *kit, cwd=tmp_path)
    return done.returncode, done.stdout


def processes_of_job(job_id: str) -> list[int]:
    """Of this job, at the server and the sites."""
    commands = {process.pid: process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])}
    return [pid for pid, command in commands.items() if job_id in command]


def check_end(system: Deployment, kits: Kits, origin: str, told: str, expected: Path, tmp_path: Path) -> None:
    """The continuation completes, its report says what it is, and its model is that of the whole job."""
    new = re.search(r"submitted as (\S+) by", told)
    assert new, told
    assert "STATUS FINISHED:COMPLETED" in (end := ask(system, "wait", new[1])), end[-2000:]
    server_kit, out = kits.folder / kits.server, tmp_path / "report.json"
    archive = archive_of(system, new[1])
    shown = bundle("report", str(server_kit), "--job", new[1], "--json", str(out), cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout
    report = json.loads(out.read_text())
    assert report["status"] == "completed"
    assert report["continued"]["job_id"] == origin
    assert [row["round"] for row in report["rounds"]] == list(range(report["continued"]["round"] + 1, 5))
    with zipfile.ZipFile(archive) as packed:
        packed.extract(FINAL, tmp_path)
    assert difference(tmp_path / FINAL, expected) <= TOLERANCE


def test_a_job_process_of_a_site_is_killed(
    kits: Kits, system: Deployment, job: Path, expected: Path, tmp_path: Path
) -> None:
    job_id = submit(system, job)
    wait_for_rounds(kits.folder / kits.server / job_id / "progress.jsonl", 1)
    site = psutil.Process(system.processes["site-1"].pid)
    kill([child for child in site.children(recursive=True) if job_id in " ".join(child.cmdline())])
    assert "STATUS FINISHED" in (told := ask(system, "wait", job_id)), told[-2000:]
    code, told = resume(kits, job_id, tmp_path)
    assert code == 0, told
    check_end(system, kits, job_id, told, expected, tmp_path)


def test_an_aborted_job_leaves_no_process_and_no_half_written_model(
    kits: Kits, system: Deployment, job: Path, tmp_path: Path
) -> None:
    job_id = submit(system, job)
    wait_for_rounds(kits.folder / kits.server / job_id / "progress.jsonl", 1)
    assert "ABORTED" in (told := ask(system, "abort", job_id)), told[-2000:]
    assert "STATUS FINISHED" in (told := ask(system, "wait", job_id)), told[-2000:]
    deadline = time.monotonic() + 60
    while left := processes_of_job(job_id):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    models = [*saved_models(system, job_id, tmp_path / "server"), *kits.folder.glob(f"site-*/{job_id}/**/*.pt")]
    assert len(models) >= 3
    for path in models:
        assert torch.load(path, weights_only=True)["model"], path


def test_the_server_is_killed(kits: Kits, system: Deployment, job: Path, expected: Path, tmp_path: Path) -> None:
    job_id = submit(system, job)
    wait_for_rounds(kits.folder / kits.server / job_id / "progress.jsonl", 2)
    kill([psutil.Process(system.processes[kits.server].pid)])
    code, told = resume(kits, job_id, tmp_path)
    assert (code, "does not answer" in told) == (2, True), told

    (kits.folder / kits.server / "log.txt").unlink()
    system.start(kits.server)
    system._wait("Server started", [kits.server])
    code, told = resume(kits, job_id, tmp_path)
    assert code == 0, told
    assert "stays listed as RUNNING" in told
    check_end(system, kits, job_id, told, expected, tmp_path)
