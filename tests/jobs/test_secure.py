# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A provisioned `secure-no-byoc` on loopback: a job without code runs, and what sites forbid is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.provision import Kits, provision
from bundle.templates import Wanted
from tests.fault import sites
from tests.fault.ended_early import wait_for_rounds
from tests.jobs.deployment import LEAD, Deployment, tls_answer
from tests.jobs.flare import bundle, export
from tests.poisoned import Touch
from tests.ports import free_port

pytestmark = pytest.mark.e2e
QUICK = ("dataset=digits", "num_rounds=1")


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    return provision("secure-no-byoc", tmp_path_factory.mktemp("secure") / "out", Wanted(port=free_port()))


@pytest.fixture(scope="module")
def system(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    work = tmp_path_factory.mktemp("processes") / "work"
    with Deployment(kits.folder, kits.server, kits.sites, work, "/nowhere", forked=True) as system:
        yield system


def without_code(out: Path, *settings: str) -> Path:
    """hello-pt, by the command of the README."""
    options = [option for setting in settings for option in ("--set", setting)]
    done = bundle("export", "hello-pt", str(out), "--no-code", *options, cwd=out.parent)
    assert done.returncode == 0, done.stdout
    return out


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_code(tmp_path_factory.mktemp("jobs") / "hello-pt", *QUICK)


def test_a_job_without_code_runs_from_the_installed_one(system: Deployment, job: Path, tmp_path: Path) -> None:
    assert not (job / "app" / "custom").exists()
    done = system.submit(LEAD, job)
    ended = re.search(r"ENDED (\S+) FINISHED:COMPLETED", done)
    assert ended, done[-3000:]
    for site in system.sites:
        run = system.folder / site / ended[1]
        assert "round 1/1" in (run / "log_rounds.txt").read_text()
        assert "ERROR" not in (run / "log.txt").read_text()  # such as that custom comes from elsewhere
    out = tmp_path / "report.json"
    report = bundle("report", str(system.folder / system.server), "--json", str(out), cwd=tmp_path)
    assert report.returncode == 0, report.stdout
    assert json.loads(out.read_text())["status"] == "completed"
    assert (system.folder / system.server / "jobs-storage" / ended[1] / "workspace").is_file()


@pytest.mark.fault
def test_an_aborted_job_without_code_is_continued_without_code(system: Deployment, tmp_path: Path) -> None:
    """Rounds of some seconds: so long it takes to log in and to abort it."""
    first = sites.submit(system, without_code(tmp_path / "job", "dataset=digits", "num_rounds=6", "local_epochs=8"))
    wait_for_rounds(system.folder / system.server / first / "progress.jsonl", 2)
    sites.abort(system, first)
    sites.wait(system, first)
    second = sites.continuation(sites.resume(system, first, tmp_path)[1])
    assert sites.wait(system, second) == "FINISHED:COMPLETED"
    report = sites.report(system, second, tmp_path)
    assert (report["status"], report["continued"]["job_id"]) == ("completed", first)
    assert report["rounds"][-1]["round"] == 6


def change(job: Path, side: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """One of the job's two configurations."""
    path = job / "app" / "config" / f"config_fed_{side}.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def fails(system: Deployment, job: Path) -> str:
    """The id of the job, which did not complete."""
    ended = re.search(r"ENDED (\S+) FINISHED:(\S+)", done := system.submit(LEAD, job))
    assert ended, done[-3000:]
    assert ended[2] != "COMPLETED"
    assert f"[U:{LEAD}][A:job_mgmt.submit_job {job.name}]" in system.audit(system.server)
    return ended[1]


def refusing(system: Deployment, side: str, job_id: str) -> str:
    """What a site, or the server, has in the error log of the job."""
    if side == "server":
        return system.job_file(job_id, "error_log.txt")
    return (system.folder / "site-1" / job_id / "error_log.txt").read_text()


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_class_that_no_job_names_is_refused(system: Deployment, job: Path, tmp_path: Path, side: str) -> None:
    """By each site and by the server, for itself, before anything of that class is made."""
    hostile, marker = shutil.copytree(job, tmp_path / f"other-{side}"), tmp_path / "executed"
    popen = {"id": "seed", "path": "subprocess.Popen", "args": {"args": ["touch", str(marker)]}}
    change(hostile, side, lambda config: config["components"].insert(0, popen))
    job_id = fails(system, hostile)
    refusal = "Component 'subprocess.Popen' at config path 'components.#1' is not in allow_list"
    assert refusal in refusing(system, side, job_id)
    assert not marker.exists()


@pytest.mark.fault
def test_a_class_on_the_list_cannot_be_told_to_run_a_poisoned_model(
    system: Deployment, job: Path, tmp_path: Path
) -> None:
    """FLARE's persistor, which may be asked to load anything, and a file that lies where the global model would."""
    hostile, marker = shutil.copytree(job, tmp_path / "poisoned"), tmp_path / "executed"
    torch.save({"model": Touch(marker)}, hostile / "app" / "FL_global_model.pt")

    def only_load(config: dict[str, Any]) -> None:
        config["workflows"] = [one for one in config["workflows"] if one["id"] == "cross_site_validate"]
        persistor = next(one for one in config["components"] if one["id"] == "persistor")
        persistor.setdefault("args", {})["load_weights_only"] = False

    change(hostile, "server", only_load)
    ended = re.search(r"ENDED (\S+)", done := system.submit(LEAD, hostile))
    assert ended, done[-3000:]
    assert "error loading checkpoint from" in system.job_file(ended[1], "log.txt")
    assert not marker.exists()
    torch.load(hostile / "app" / "FL_global_model.pt", weights_only=False)
    assert marker.exists()  # so the payload was a real one


@pytest.mark.fault
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_class_on_the_list_cannot_be_told_to_make_one_that_is_not(
    system: Deployment, job: Path, tmp_path: Path, side: str
) -> None:
    """FLARE's persistor makes the model that its arguments name, where FLARE's own check does not look."""
    hostile, marker = shutil.copytree(job, tmp_path / f"named-{side}"), tmp_path / "executed"
    popen = {"path": "subprocess.Popen", "args": {"args": ["touch", str(marker)]}, "config_type": "dict"}
    change(hostile, side, lambda config: config["components"][0].update(args={"model": popen}))
    log = refusing(system, side, fails(system, hostile))
    assert "'subprocess.Popen' in the arguments of" in log
    assert "is not in allow_list" in log
    assert not marker.exists()


def test_a_job_that_brings_code_is_refused(system: Deployment, tmp_path: Path) -> None:
    admin = "admin@flare.example"
    done = system.submit(admin, export("hello-pt", tmp_path / "job", *QUICK))
    assert "FINISHED:FAILED_TO_RUN" in done, done[-3000:]
    assert "BYOC not permitted" in system.log(system.server)
    assert f"[U:{admin}][A:byoc]refused: user '{admin}' is not authorized for 'byoc'" in system.audit(system.server)


def test_a_member_only_looks(system: Deployment, job: Path) -> None:
    """The server refuses what it decides, each site what is for sites; both write it into their audit logs."""
    member = "member@flare.example"
    jobs = system.ask(member, "list_jobs")
    assert "DONE [" in jobs, jobs[-2000:]
    assert "REFUSED AuthorizationError" in system.ask(member, "submit_job", str(job))
    assert f"[U:{member}][A:submit_job]refused: user '{member}' is not authorized" in system.audit(system.server)
    assert system.ask(member, "list_jobs") == jobs
    assert "REFUSED" in system.ask(member, "shutdown", "client")
    for site in system.sites:
        assert f"[U:{member}][A:shutdown]refused: " in system.audit(site)
        assert system.processes[site].poll() is None


def test_nobody_connects_without_a_certificate_of_this_system(system: Deployment, kits: Kits) -> None:
    startup = kits.folder / "site-1" / "startup"
    own = startup / "client.crt", startup / "client.key"
    assert tls_answer(kits.port, startup / "rootCA.pem", own).startswith("HTTP/1.1 ")
    assert tls_answer(kits.port, startup / "rootCA.pem", None) == ""


def test_it_is_the_port_of_this_machine_alone(kits: Kits, system: Deployment) -> None:
    """A server that is reached by `localhost` listens nowhere else."""
    listening = Path("/proc/net/tcp").read_text().splitlines()
    mine = [line.split()[1] for line in listening if line.split()[1].endswith(f":{kits.port:04X}")]
    assert set(mine) == {f"0100007F:{kits.port:04X}"}
