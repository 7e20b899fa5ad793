# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What happens without a FLARE server that answers; with one: test_flare.py."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from nvflare.fuel.flare_api import api_spec

from bundle.admin_kit import Kit, read_kit
from bundle.connection import Connection, Unreachable, _of_a_job
from tests.bundle.kits import Authority, write_kit


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port at which something listens that says nothing, as a stopped process does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def kit_for(folder: Path, authority: Authority, port: int, host: str = "127.0.0.1") -> Kit:
    return read_kit(write_kit(folder, authority, host=host, port=port))


def problem(kit: Kit) -> str:
    """What is said of a server that cannot be reached; without a session, which would try for half a minute."""
    connection = Connection(kit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bundle.connection.Session", None)
        with pytest.raises(Unreachable) as error:
            connection.run(lambda session: session.get_system_info())
    connection.close()
    return str(error.value)


def test_a_kit_that_has_expired_since(tmp_path: Path) -> None:
    kit = replace(kit_for(tmp_path, Authority("a"), 1), expires=time.time() - 1)
    assert problem(kit) == "the certificate of ann@clinic.org has expired; start again with a new kit"


def test_nothing_listens(tmp_path: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    said = problem(kit_for(tmp_path, Authority("a"), port))
    assert said == f"the FLARE server at 127.0.0.1:{port} does not answer; is it running?"


def test_a_server_that_hangs(tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.connection.PROBE_S", 0.3)
    said = problem(kit_for(tmp_path, Authority("a"), listener.getsockname()[1]))
    assert "does not answer" in said


def test_a_host_that_nobody_knows(tmp_path: Path) -> None:
    said = problem(kit_for(tmp_path, Authority("a"), 8002, host="no-such-host.invalid"))
    assert said.startswith("the name of the FLARE server, no-such-host.invalid, is not known")


def test_a_server_of_another_project(tmp_path: Path, listener: socket.socket) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    certificate, key = Authority("b").issue(name)
    (tmp_path / "server.crt").write_bytes(certificate)
    (tmp_path / "server.key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

    def serve() -> None:
        plain, _ = listener.accept()
        with plain:
            context.wrap_socket(plain, server_side=True)

    with ThreadPoolExecutor() as threads:
        served = threads.submit(serve)
        said = problem(kit_for(tmp_path / "kit", Authority("a"), listener.getsockname()[1]))
        with pytest.raises(OSError, match="alert"):
            served.result()
    assert said.endswith("is not the kit's; does the kit belong to this system?")


def test_a_closed_connection_makes_no_new_session(tmp_path: Path, listener: socket.socket) -> None:
    connection = Connection(kit_for(tmp_path, Authority("a"), listener.getsockname()[1]))
    connection.close()
    with pytest.raises(Unreachable, match="the connection is closed"):
        connection.connect()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (api_spec.JobNotFound("no such job: x"), "there is no such job any more"),
        (api_spec.JobNotDone("job x is still running"), "the job has not ended yet"),
        (api_spec.InvalidJobDefinition("invalid job definition: no app"), "FLARE refuses the job, got no app"),
        (RuntimeError("odd"), "FLARE answers with an error, got odd"),
        (ValueError(), "FLARE answers with an error, got ValueError"),
    ],
)
def test_what_flare_says_of_a_job_is_a_sentence(error: Exception, says: str) -> None:
    assert str(_of_a_job(error)).startswith(says)
