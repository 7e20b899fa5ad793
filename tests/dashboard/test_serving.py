# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Where the dashboard may listen, under which names, and what is said at a wrong start."""

from __future__ import annotations

import socket
from pathlib import Path
from types import ModuleType

import pytest

from custom.errors import BundleError
from dashboard import __main__ as command
from dashboard import local
from dashboard.passwords import write_password
from dashboard.serving import Address
from tests.dashboard.served import PASSWORD, make_kit, write_certificate
from tests.ports import free_port


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.8.8.8", True)]
)
def test_which_hosts_are_local(host: str, local: bool) -> None:
    assert Address(host, 8765).local is local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_refuses_other_machines_without_tls(host: str) -> None:
    with pytest.raises(BundleError, match="--tls-cert"):
        Address(host, 8765).check()


def test_allows_other_machines_with_tls_and_answers_to_the_certificates_names(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, "server", dns="Dashboard.example.org")
    address = Address("0.0.0.0", free_port(), certificate, key)
    address.check()
    assert address.names() == {"127.0.0.1", "localhost", "::1", "dashboard.example.org"}
    assert address.url.startswith("https://127.0.0.1:")


def test_refuses_an_expired_certificate(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, "server", days=-1)
    with pytest.raises(BundleError, match="expired on 20"):
        Address("127.0.0.1", free_port(), certificate, key).check()


def test_refuses_the_key_of_another_certificate(tmp_path: Path) -> None:
    certificate, _ = write_certificate(tmp_path, "server")
    _, key = write_certificate(tmp_path, "other")
    with pytest.raises(BundleError, match="is not the key of"):
        Address("127.0.0.1", free_port(), certificate, key).check()


def test_refuses_a_certificate_without_a_key(tmp_path: Path) -> None:
    certificate, _ = write_certificate(tmp_path, "server")
    with pytest.raises(BundleError, match="give both"):
        Address("127.0.0.1", free_port(), certificate).check()


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_refuses_what_is_no_certificate(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "server.crt"
    if text:
        file.write_text(text)
    with pytest.raises(BundleError, match=str(file)):
        Address("127.0.0.1", free_port(), file, file).check()


def test_refuses_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BundleError, match=f"--port {port}: cannot listen there"):
            Address("127.0.0.1", port).check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--kit is missing"),
        (["--kit", "{tmp}/none"], "no such folder"),
        (["--kit", "{tmp}"], "is not a startup kit"),
        (["--kit", "{tmp}/kit", "--host", "0.0.0.0"], "--tls-cert"),
        (["--kit", "{tmp}/kit", "--password-file", "{tmp}/open"], "chmod 600"),
        (["--kit", "{tmp}/kit", "--password-file", "{tmp}/none"], "--set-password"),
    ],
)
def test_a_wrong_start_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    make_kit(tmp_path / "kit", 1)
    write_password(tmp_path / "open", PASSWORD)
    (tmp_path / "open").chmod(0o644)
    given = [option.format(tmp=tmp_path) for option in options]
    assert command.main([*given, "--port", str(free_port())]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize("module", [command, local])
@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "08765", "http", ""])
def test_what_is_no_port(module: ModuleType, port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        module.build_parser().parse_args(["--port", port])
    assert ended.value.code == 2
    assert "1 to 65535" in capsys.readouterr().err
