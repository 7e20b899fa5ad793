# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The jobs in a POC (mutual TLS): submitted with FLARE's command and with its API, downloaded, reported."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle.forked_jobs import fork_jobs
from dashboard.poc import in_use
from tests.jobs.flare import NVFLARE, ROOT, bundle, environment, export, run
from tests.ports import free_port

pytestmark = pytest.mark.e2e
SUBMIT = """
import sys
from nvflare.fuel.flare_api.flare_api import new_secure_session
session = new_secure_session("admin@nvidia.com", sys.argv[1])
ids = [session.submit_job(job) for job in sys.argv[2:]]
for job_id in ids:
    session.monitor_job(job_id, timeout=300, poll_interval=0.3)
    print("ENDED", job_id, session.get_job_meta(job_id)["status"])
session.close()
"""
JOBS = {  # and their settings
    "fl-plus-ft": ("dataset=digits", "num_rounds=1", "fine_tune_epochs=1"),
    "perfedavg": (
        *("dataset=digits", "fed_avg.num_rounds=1", "meta_train.num_rounds=1", "writers_per_round=4"),
        *("local_epochs=1", "personalization_epochs=1", "eval_every=0"),
    ),
    "sparse-bert": ("model_name_or_path=embedded", "dataset=headlines", "num_rounds=3", "local_steps=4"),
}


class Poc:
    """A POC system in its own home and workspace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home, workspace = folder / "home", folder / "poc"
        home.mkdir()
        self.workspace = workspace
        self.env = environment(folder / "nothing", HOME=str(home), NVFLARE_POC_WORKSPACE=str(workspace))

    def flare(self, *arguments: str, limit_s: float = 1200) -> str:
        done = run([str(NVFLARE), *arguments], self.folder / "empty", self.env, limit_s)
        assert done.returncode == 0, f"nvflare {' '.join(arguments)}\n{done.stdout[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def poc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Poc]:
    """At a port of its own: that of every POC is the one of the dashboard's tests, which may run meanwhile."""
    poc, port = Poc(tmp_path_factory.mktemp("poc")), free_port()
    poc.flare("poc", "prepare", "-n", "2", "--force")
    project = (poc.workspace / "project.yml").read_text()
    assert "fed_learn_port: 8002" in project
    (poc.folder / "project.yml").write_text(project.replace("8002", str(port)))
    poc.flare("poc", "prepare", "-i", str(poc.folder / "project.yml"), "--force")
    fork_jobs(poc.workspace / "example_project" / "prod_00")
    poc.flare("poc", "start", "--timeout", "200")  # 30 s if nothing is said, too few for a busy machine
    yield poc
    # FLARE's own waiting logs in again and again, also while the server ends, and then sees no answer for 30 s.
    poc.flare("poc", "stop", "--no-wait", limit_s=600)
    deadline = time.monotonic() + 60
    while in_use(port) and time.monotonic() < deadline:
        time.sleep(1)
    assert not in_use(port), "the POC server is still there a minute after stop"


def wait_until_ready(poc: Poc) -> None:
    """Both clients have registered."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        logs = [path.read_text() for path in poc.workspace.rglob("site-*/log.txt")]
        if len(logs) == 2 and all("Successfully registered client" in log for log in logs):
            return
        time.sleep(1)
    pytest.fail("the clients of the POC did not register within 300 s")


def test_submit_monitor_download_report(poc: Poc, tmp_path: Path) -> None:
    wait_until_ready(poc)
    answer = poc.flare("--format", "json", "job", "submit", "-j", str(ROOT / "jobs" / "hello-pt"))
    job_id = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer)
    assert job_id, answer
    poc.flare("job", "monitor", "--timeout", "300", job_id[0])
    poc.flare("job", "download", "-o", str(tmp_path / "results"), job_id[0], "--force")

    out = tmp_path / "report.json"
    for place in (tmp_path / "results" / job_id[0], poc.workspace):
        done = bundle("report", str(place), "--json", str(out), cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        report = json.loads(out.read_text())
        assert report["job"] == "hello-pt"
        assert report["status"] == "completed", done.stdout
        assert len(report["rounds"]) == 5
        assert set(report["cross_site"]["site-1"]) == {"site-1", "site-2"}


@pytest.fixture(scope="module")
def reports(poc: Poc, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of JOBS, submitted through FLARE's API, which refuses links, and run side by side to their end."""
    wait_until_ready(poc)
    folder = tmp_path_factory.mktemp("jobs")
    jobs = [str(export(name, folder / name, *settings)) for name, settings in JOBS.items()]
    kit = next(path for path in poc.workspace.rglob("admin@nvidia.com") if path.is_dir())
    told = run([sys.executable, "-c", SUBMIT, str(kit), *jobs], folder / "empty", poc.env).stdout
    ids = re.findall(r"ENDED (\S+) FINISHED:COMPLETED", told)
    assert len(ids) == len(JOBS), told[-3000:]
    reports = {}
    for name, job_id in zip(JOBS, ids, strict=True):
        out = folder / f"{name}.json"
        done = bundle("report", str(poc.workspace), "--job", job_id, "--json", str(out), cwd=folder)
        assert done.returncode == 0, done.stdout
        reports[name] = json.loads(out.read_text())
    return reports


def test_fine_tuning_leaves_the_personal_models_in_the_kits_of_the_sites(
    poc: Poc, reports: dict[str, dict[str, Any]]
) -> None:
    cards = sorted(poc.workspace.rglob("personal_models/fl-plus-ft/model_card.json"))
    assert [json.loads(card.read_text())["site"] for card in cards] == ["site-1", "site-2"]
    assert set(reports["fl-plus-ft"]["personalization"]["sites"]) == {"site-1", "site-2"}


def test_writers_are_personalised(reports: dict[str, dict[str, Any]]) -> None:
    assert reports["perfedavg"]["personalization"]["summary"]["writers"] == 20


def test_both_ways_are_sparse(reports: dict[str, dict[str, Any]]) -> None:
    """A tenth of each update up, and down only what changed: the site says in its requests what it holds."""
    rounds = reports["sparse-bert"]["rounds"]
    assert [row["upload_bytes"] < 0.12 * row["dense_upload_bytes"] for row in rounds] == [True] * 3
    assert [row["download_bytes"] < 0.25 * row["dense_download_bytes"] for row in rounds] == [False, True, True]


def test_their_processes_were_forked(poc: Poc, reports: dict[str, dict[str, Any]]) -> None:
    logs = [path.read_text() for path in poc.workspace.rglob("*/log.txt") if path.parent.parent.name == "prod_00"]
    assert [log.count("Launch the job in process ID") > len(JOBS) for log in logs] == [True] * 3
    assert not any("is not forked" in log for log in logs)
