# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The jobs in a POC (mutual TLS): submitted with FLARE's command and with its API, downloaded, reported."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.flare import NVFLARE, ROOT, bundle, environment, export, run

pytestmark = pytest.mark.e2e
SUBMIT = """
import sys
from nvflare.fuel.flare_api.flare_api import new_secure_session
session = new_secure_session("admin@nvidia.com", sys.argv[1])
job_id = session.submit_job(sys.argv[2])
session.monitor_job(job_id, timeout=300)
print("FINISHED", job_id, session.get_job_meta(job_id)["status"])
session.close()
"""


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


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
    busy = [port for port in (8002, 8003) if not port_is_free(port)]
    if busy:
        pytest.fail(
            f"POC needs ports 8002 and 8003; in use: {busy}. Stop what listens there, then run this test again."
        )
    poc = Poc(tmp_path_factory.mktemp("poc"))
    poc.flare("poc", "prepare", "-n", "2", "--force")
    poc.flare("poc", "start", "--timeout", "200")  # 30 s if nothing is said, too few for a busy machine
    yield poc
    poc.flare("poc", "stop", limit_s=600)
    deadline = time.monotonic() + 60
    while not port_is_free(8002) and time.monotonic() < deadline:
        time.sleep(1)
    assert port_is_free(8002), "the POC server is still there a minute after stop"


def submit(poc: Poc, job: Path, folder: Path) -> str:
    """Through FLARE's API, which refuses links; waits for the end."""
    kit = next(path for path in poc.workspace.rglob("admin@nvidia.com") if path.is_dir())
    return run([sys.executable, "-c", SUBMIT, str(kit), str(job)], folder / "empty", poc.env).stdout


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


def test_fine_tuning_leaves_the_personal_models_in_the_kits_of_the_sites(poc: Poc, tmp_path: Path) -> None:
    wait_until_ready(poc)
    job = export("fl-plus-ft", tmp_path / "job", "dataset=digits", "num_rounds=1", "fine_tune_epochs=1")
    done = submit(poc, job, tmp_path)
    assert re.search(r"FINISHED \S+ FINISHED:COMPLETED", done), done[-3000:]
    cards = sorted(poc.workspace.rglob("personal_models/fl-plus-ft/model_card.json"))
    assert [json.loads(card.read_text())["site"] for card in cards] == ["site-1", "site-2"]
    out = tmp_path / "report.json"
    assert bundle("report", str(poc.workspace), "--json", str(out), cwd=tmp_path).returncode == 0
    assert set(json.loads(out.read_text())["personalization"]["sites"]) == {"site-1", "site-2"}


def test_writers_are_personalised(poc: Poc, tmp_path: Path) -> None:
    wait_until_ready(poc)
    quick = ("dataset=digits", "fed_avg.num_rounds=1", "meta_train.num_rounds=1", "writers_per_round=4")
    quick += ("local_epochs=1", "personalization_epochs=1", "eval_every=0")
    done = submit(poc, export("perfedavg", tmp_path / "job", *quick), tmp_path)
    assert re.search(r"FINISHED \S+ FINISHED:COMPLETED", done), done[-3000:]
    out = tmp_path / "report.json"
    assert bundle("report", str(poc.workspace), "--json", str(out), cwd=tmp_path).returncode == 0
    assert json.loads(out.read_text())["personalization"]["summary"]["writers"] == 20


def test_both_ways_are_sparse(poc: Poc, tmp_path: Path) -> None:
    """A tenth of each update up, and down only what changed: the site says in its requests what it holds."""
    wait_until_ready(poc)
    quick = ("model_name_or_path=embedded", "dataset=headlines", "num_rounds=3", "local_steps=4")
    done = submit(poc, export("sparse-bert", tmp_path / "job", *quick), tmp_path)
    assert re.search(r"FINISHED \S+ FINISHED:COMPLETED", done), done[-3000:]
    out = tmp_path / "report.json"
    assert bundle("report", str(poc.workspace), "--json", str(out), cwd=tmp_path).returncode == 0
    rounds = json.loads(out.read_text())["rounds"]
    assert [row["upload_bytes"] < 0.12 * row["dense_upload_bytes"] for row in rounds] == [True] * 3
    assert [row["download_bytes"] < 0.25 * row["dense_download_bytes"] for row in rounds] == [False, True, True]
