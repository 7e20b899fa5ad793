# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Whoever has no certificate, a wrong one, another's token or too few rights, against a deployment while a job runs."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import socket
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from nvflare.lighter.utils import Identity, generate_cert, generate_keys, serialize_cert, serialize_pri_key

from bundle.provision import Kits, provision
from bundle.templates import Wanted
from tests.fault import intruder
from tests.fault.ended_early import wait_for_rounds
from tests.fault.intruder import Attempt
from tests.jobs.deployment import LEAD, Deployment, tls_answer
from tests.jobs.flare import export, run
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.fault]
ADMIN, MEMBER = "admin@flare.example", "member@flare.example"
RUNNING, INSIDER = ("site-1", "site-2"), "site-3"  # the kit of the third is in the intruder's hands
TOKENS: list[str] = []  # that were stolen
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    wanted = Wanted((*RUNNING, INSIDER), port=free_port())
    return provision("secure", tmp_path_factory.mktemp("kits") / "out", wanted)


@pytest.fixture(scope="module")
def foreign(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> Kits:
    """Of another project, with the same names, for the same server and port."""
    return provision("secure", tmp_path_factory.mktemp("foreign") / "out", Wanted(RUNNING, port=kits.port))


@pytest.fixture(scope="module")
def system(kits: Kits, foreign: Kits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    work = tmp_path_factory.mktemp("work")
    with Deployment(kits.folder, kits.server, RUNNING, work / "deployment", work) as system:
        yield system


@pytest.fixture(scope="module")
def job_id(system: Deployment, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a job that runs as long as the tests of this file do."""
    job = export("hello-pt", tmp_path_factory.mktemp("job") / "job", "dataset=digits", "num_rounds=100000")
    submitted = re.search(r"DONE (\S+)", told := system.ask(LEAD, "submit_job", str(job)))
    assert submitted, told[-2000:]
    wait_for_rounds(progress(system, submitted[1]), 1)
    stolen = stolen_from("site-1", submitted[1])
    TOKENS.extend((stolen["token"], stolen["signature"]))
    return submitted[1]


def progress(system: Deployment, job_id: str) -> Path:
    return system.folder / system.server / job_id / "progress.jsonl"


def assert_undisturbed(system: Deployment, job_id: str) -> None:
    """Two more rounds, each with both sites and nothing refused."""
    rounds = rounds_of(system, job_id)
    wait_for_rounds(progress(system, job_id), len(rounds) + 2)
    for event in rounds_of(system, job_id)[len(rounds) :]:
        assert set(event["sites"]) == set(RUNNING)
        assert not event["failed"]


def rounds_of(system: Deployment, job_id: str) -> list[dict[str, Any]]:
    lines = progress(system, job_id).read_text().split("\n")[:-1]
    return [event for event in map(json.loads, lines) if event["event"] == "round"]


def issue(kits: Kits, folder: Path, begins: datetime.timedelta, ends: datetime.timedelta) -> tuple[Path, Path]:
    """The insider's certificate and its key, signed with the project's root key; valid from and until then."""
    state = json.loads((kits.state / "cert.json").read_text())
    root = x509.load_pem_x509_certificate(state["root_cert"].encode())
    private, public = generate_keys()
    now = datetime.datetime.now(datetime.UTC)
    certificate = generate_cert(
        subject=Identity(INSIDER, "org"),
        issuer=Identity(root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value),
        signing_pri_key=serialization.load_pem_private_key(state["root_pri_key"].encode(), None),
        subject_pub_key=public,
        not_valid_before=now + begins,
        not_valid_after=now + ends,
    )
    (folder / "client.crt").write_bytes(serialize_cert(certificate))
    (folder / "client.key").write_bytes(serialize_pri_key(private))
    return folder / "client.crt", folder / "client.key"


def answer(kits: Kits, certificate: tuple[Path, Path] | None) -> str:
    return tls_answer(kits.port, kits.folder / INSIDER / "startup" / "rootCA.pem", certificate)


def test_certificates_that_are_expired_or_of_another_project(
    system: Deployment, kits: Kits, foreign: Kits, tmp_path: Path
) -> None:
    """The server refuses them in the handshake, and logs nothing: neither Python's asyncio nor FLARE does."""
    for name in ("valid", "expired", "early"):
        (tmp_path / name).mkdir()
    before = system.log(system.server)
    other = foreign.folder / "site-1" / "startup"
    assert answer(kits, issue(kits, tmp_path / "valid", -DAY, DAY)).startswith("HTTP/1.1 ")
    assert answer(kits, issue(kits, tmp_path / "expired", -2 * DAY, -DAY)) == ""
    assert answer(kits, issue(kits, tmp_path / "early", DAY, 2 * DAY)) == ""
    assert answer(kits, (other / "client.crt", other / "client.key")) == ""
    assert answer(kits, None) == ""
    assert system.log(system.server).removeprefix(before).count("Connection") <= 2  # made and closed: the valid one's


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x10" * 64,
    ],
    ids=["HTTP", "gRPC", "TCP"],
)
def test_without_tls_the_server_says_nothing(system: Deployment, kits: Kits, hello: bytes) -> None:
    with socket.create_connection(("localhost", kits.port), timeout=10) as plain:
        plain.sendall(hello)
        with contextlib.suppress(ConnectionError):
            assert plain.recv(100) == b""


def test_the_site_of_another_project_gets_nowhere(system: Deployment, foreign: Kits, tmp_path: Path) -> None:
    """Its processes as they are, with the name of a site that runs here; its own log says why."""
    before = system.log(system.server)
    stranger = Deployment(foreign.folder, foreign.server, ["site-1"], tmp_path / "stranger", tmp_path)
    try:
        stranger.start("site-1")
        deadline = time.monotonic() + 90
        while "certificate verify failed" not in (told := (stranger.work / "site-1.log").read_text()):
            assert time.monotonic() < deadline, told[-2000:]
            time.sleep(0.5)
    finally:
        stranger.stop()
    assert "Successfully registered" not in told
    assert "joined" not in system.log(system.server).removeprefix(before)


def attempt(
    system: Deployment, kits: Kits, tmp_path: Path, endpoint: str, kit: str = INSIDER, **more: Any
) -> tuple[dict[str, Any], str]:
    """What the intruder with the certificate of that kit was told, and what that added to the server's log."""
    startup = kits.folder / kit / "startup"
    files = {"root": "rootCA.pem", "certificate": "client.crt", "key": "client.key"}
    paths = {key: str(startup / name) for key, name in files.items()}
    (tmp_path / "attempt.json").write_text(Attempt(port=kits.port, endpoint=endpoint, **paths, **more).to_json())
    before = system.log(system.server)
    done = run([sys.executable, intruder.__file__, str(tmp_path / "attempt.json")], tmp_path / "empty", system.env, 120)
    return json.loads(done.stdout.splitlines()[-1]), system.log(system.server).removeprefix(before)


def test_nobody_takes_the_name_of_another_site(system: Deployment, kits: Kits, job_id: str, tmp_path: Path) -> None:
    told, log = attempt(system, kits, tmp_path, "site-1")
    assert not told["connected"]
    assert "authenticated as 'site-3' but claimed endpoint 'site-1' requires identity 'site-1'" in log

    told, log = attempt(system, kits, tmp_path, INSIDER, register_as="site-1")
    assert told["registered"].startswith("refused"), told
    assert "refused: site-3 sent a message as client 'site-1'" in log
    assert "joined" not in log

    told, log = attempt(system, kits, tmp_path, INSIDER, register_as=INSIDER)
    assert re.fullmatch(
        r"[0-9a-f-]{36}", told["registered"]["token"]
    )  # as itself it may: so the tries above were real ones
    assert "New client site-3" in log
    assert_undisturbed(system, job_id)


def stolen_from(site: str, job_id: str) -> dict[str, str]:
    """What whoever may read the environment of the site's job process finds there: the same user, or root."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if job_id in command and site in command and any("worker_process" in part for part in command):
            found = process.environ()
            names = {"token": "AUTH_TOKEN", "signature": "TOKEN_SIGNATURE", "ssid": "SSID"}
            return {key: found[f"NVFLARE_JOB_{name}"] for key, name in names.items()}
    raise AssertionError(f"{site} has no process of {job_id}")


def test_a_stolen_token_is_of_no_use_to_another_site(
    system: Deployment, kits: Kits, job_id: str, tmp_path: Path
) -> None:
    topics = ["heart_beat", "get_task", "quit"]
    stolen = stolen_from("site-1", job_id)
    more = {"stolen": stolen, "owner": "site-1", "job_id": job_id, "topics": topics}
    told, log = attempt(system, kits, tmp_path, INSIDER, topics=topics, job_id=job_id)
    assert told["connected"]
    assert "ok" not in told["replies"].values(), told
    assert "received from site-3: missing client name" in log

    told, log = attempt(system, kits, tmp_path, INSIDER, **more)
    assert "ok" not in told["replies"].values(), told
    assert "auth token for client site-1 is bound to origin site-1, not message origin site-3" in log

    for origin in ("site-1", f"site-1.{job_id}"):  # what FLARE itself would believe
        told, log = attempt(system, kits, tmp_path, INSIDER, origin=origin, **more)
        assert "ok" not in told["replies"].values(), told
        refusal = f"refused: site-3 sent a message in the name of '{origin}'"
        assert log.count(refusal) >= len(topics), log
        assert "left" not in log
        assert "dead-job" not in log
        for topic in ("heart_beat", "quit"):
            assert f"[U:site-3][A:'{topic}']{refusal}" in system.audit(system.server)
    assert_undisturbed(system, job_id)


def test_a_site_asks_for_nothing_but_its_tasks(system: Deployment, kits: Kits, job_id: str, tmp_path: Path) -> None:
    """With its own name and token: commands for another site, for the job, and for the server; a name made up."""
    requests = [
        ("site-1", "admin", "sys.shell", "cat startup/client.key"),
        (f"site-1.{job_id}", "client_command", "abort", ""),
        (f"server.{job_id}", "server_command", "abort", ""),
        (f"server.{job_id}", "server_command", "show_stats", ""),
        ("server", "server_parent_listener", "get_clients", ""),
        ("server", "server_parent_listener", "update_run_status", ""),
        ("server", "_net_manager", "stop", ""),
    ]
    more = {"register_as": INSIDER, "job_id": job_id, "requests": requests, "phantom": "site-"}
    told, log = attempt(system, kits, tmp_path, INSIDER, **more)
    assert len(told["asked"]) == len(requests), told
    assert "ok" not in {*told["asked"].values(), told["phantom"]}, told
    audit = system.audit(system.server)
    for target, channel, topic, _ in requests:
        what = f"'{topic}' on '{channel}'" if target == "server" else f"a message to '{target}'"
        assert f"[U:site-3][A:'{topic}']refused: site-3 sent {what}" in audit
    assert "[U:site-3][A:'heart_beat']refused: site-3 sent a message as client 'site-'" in audit
    assert "re-activated" not in log
    assert_undisturbed(system, job_id)


def test_a_log_that_a_site_sends_is_nothing_else(system: Deployment, kits: Kits, job_id: str, tmp_path: Path) -> None:
    """FLARE's own component would store the file that the message names as the log, and so move it away."""
    own = system.folder / system.server / "startup" / "server.key"
    more = {"register_as": INSIDER, "job_id": job_id}
    requests = [("server", "aux_communication", "ObjectStreamer.Request", str(own))]
    told, log = attempt(system, kits, tmp_path, INSIDER, requests=requests, **more)
    assert list(told["asked"].values()) == ["ok"]  # so it came to the component
    assert f"No log data received from {INSIDER} for job {job_id}" in log
    assert own.is_file()
    assert_undisturbed(system, job_id)


def test_the_kit_of_a_member_makes_no_site_and_that_of_a_site_no_admin(
    system: Deployment, kits: Kits, job_id: str, tmp_path: Path
) -> None:
    """Cells have no names with an @, so the member can only come as a session of an admin."""
    session = f"_admin_{uuid.uuid4()}"
    told, log = attempt(system, kits, tmp_path, session, kit=MEMBER, register_as=MEMBER)
    assert told["connected"]  # as sessions of admins do
    assert str(told["registered"]).startswith("refused"), told
    assert f"refused: {session} wanted to register as 'regular'" in log
    told, log = attempt(system, kits, tmp_path, session, register_as=INSIDER)
    assert not told["connected"]
    assert f"refused: {session} connected with the certificate of '{INSIDER}'" in log
    assert_undisturbed(system, job_id)


def test_a_site_runs_no_command_that_reads_its_files(system: Deployment, job_id: str) -> None:
    """Whoever asks, with whatever right."""
    told = system.ask(ADMIN, "cat_target", "site-1", "", "local/resources.json")
    assert "refused by the site: shell commands" in told, told
    assert f"[U:{ADMIN}][A:sys.shell]refused: shell commands" in system.audit("site-1")
    assert_undisturbed(system, job_id)


def test_a_member_neither_submits_nor_stops_anything(system: Deployment, job_id: str, tmp_path: Path) -> None:
    other = export("hello-pt", tmp_path / "other", "dataset=digits", "num_rounds=1")
    for command, argument in (("submit_job", str(other)), ("abort_job", job_id), ("delete_job", job_id)):
        told = system.ask(MEMBER, command, argument)
        assert "REFUSED AuthorizationError" in told, told[-2000:]
        line = f"[U:{MEMBER}][A:{command}]refused: user '{MEMBER}' is not authorized for '{command}'"
        assert line in system.audit(system.server)
    listed = system.ask(MEMBER, "list_jobs")
    assert re.findall(r"'job_id': '([0-9a-f-]{36})'", listed) == [job_id], listed
    assert_undisturbed(system, job_id)


def test_the_lead_of_another_site_does_not_stop_it_and_its_own_does(system: Deployment, job_id: str) -> None:
    other = "lead-site-2@flare.example"
    assert "REFUSED AuthorizationError" in system.ask(other, "abort_job", job_id)
    assert f"[U:{other}][A:abort_job]refused: " in system.audit(system.server)
    assert_undisturbed(system, job_id)
    assert "DONE" in system.ask(LEAD, "abort_job", job_id)


def test_keys_and_tokens_have_stayed_where_they_belong(system: Deployment, kits: Kits, job_id: str) -> None:
    """After all of the above: keys are for their owner alone, and no log and no job has a token of a site."""
    root = kits.folder.parents[1]
    files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    keys = [path for path, content in files.items() if b"PRIVATE KEY" in content]
    assert len(keys) == 1 + 1 + len(kits.sites) + len(kits.admins)  # the state, which has them all, and the kits
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in kits.folder.iterdir()} == {0o700}
    for token in TOKENS:
        assert not [path for path, content in files.items() if token.encode() in content]
