# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A provisioned `secure-no-byoc` on loopback: a job without code runs, and what sites forbid is refused."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.provision import Kits, provision
from bundle.templates import Wanted
from tests.jobs.deployment import Deployment, free_port
from tests.jobs.flare import bundle, export

pytestmark = pytest.mark.e2e
LEAD = "lead-site-1@flare.example"
QUICK = ("dataset=digits", "num_rounds=1")


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    return provision("secure-no-byoc", tmp_path_factory.mktemp("secure") / "out", Wanted(port=free_port()))


@pytest.fixture(scope="module")
def system(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    work = tmp_path_factory.mktemp("processes") / "work"
    with Deployment(kits.folder, kits.server, kits.sites, work, data_root="/nowhere") as system:
        yield system


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hello-pt without code, by the command of the README."""
    out = tmp_path_factory.mktemp("jobs") / "hello-pt"
    settings = [option for setting in QUICK for option in ("--set", setting)]
    done = bundle("export", "hello-pt", str(out), "--no-code", *settings, cwd=out.parent)
    assert done.returncode == 0, done.stdout
    return out


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


def test_a_site_refuses_a_class_that_no_job_names(system: Deployment, job: Path, tmp_path: Path) -> None:
    other = shutil.copytree(job, tmp_path / "job")
    path = other / "app" / "config" / "config_fed_client.json"
    config = json.loads(path.read_text())
    config["components"][0] = {"id": "seed", "path": "subprocess.Popen", "args": {"args": ["true"]}}
    path.write_text(json.dumps(config))
    done = system.submit(LEAD, other)
    ended = re.search(r"ENDED (\S+) FINISHED:(\S+)", done)
    assert ended, done[-3000:]
    assert ended[2] != "COMPLETED"
    refusal = "Component 'subprocess.Popen' at config path 'components.#1' is not in allow_list"
    assert refusal in (system.folder / "site-1" / ended[1] / "log.txt").read_text()


def test_a_job_that_brings_code_is_refused(system: Deployment, tmp_path: Path) -> None:
    done = system.submit("admin@flare.example", export("hello-pt", tmp_path / "job", *QUICK))
    assert "FINISHED:FAILED_TO_RUN" in done, done[-3000:]
    assert "BYOC not permitted" in system.log(system.server)


def test_a_member_only_looks(system: Deployment, job: Path) -> None:
    """The server refuses what it decides, each site what is for sites; both write it into their audit logs."""
    member = "member@flare.example"
    jobs = system.ask(member, "list_jobs")
    assert jobs.strip().startswith("DONE ["), jobs[-2000:]
    assert "REFUSED AuthorizationError" in system.ask(member, "submit_job", str(job))
    assert f"[U:{member}][A:submit_job]refused: user '{member}' is not authorized" in system.audit(system.server)
    assert system.ask(member, "list_jobs") == jobs
    assert "REFUSED" in system.ask(member, "shutdown", "client")
    for site in system.sites:
        assert f"[U:{member}][A:shutdown]refused: " in system.audit(site)
        assert system.processes[site].poll() is None


def test_nobody_connects_without_a_certificate_of_this_system(system: Deployment, kits: Kits) -> None:
    startup = kits.folder / "site-1" / "startup"

    def answer(certificate: bool) -> str:
        context = ssl.create_default_context(cafile=str(startup / "rootCA.pem"))
        if certificate:
            context.load_cert_chain(startup / "client.crt", startup / "client.key")
        try:
            with (
                socket.create_connection(("localhost", kits.port), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return secure.recv(100).decode()  # in TLS 1.3, only now does a client learn that it is refused
        except OSError:
            return ""

    assert answer(certificate=True).startswith("HTTP/1.1 ")
    assert answer(certificate=False) == ""


def test_it_is_the_port_of_this_machine_alone(kits: Kits, system: Deployment) -> None:
    """A server that is reached by `localhost` listens nowhere else."""
    listening = Path("/proc/net/tcp").read_text().splitlines()
    mine = [line.split()[1] for line in listening if line.split()[1].endswith(f":{kits.port:04X}")]
    assert set(mine) == {f"0100007F:{kits.port:04X}"}
