# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`bundle provision` with FLARE's own provisioning: new kits, renewed ones, and what stops it."""

from __future__ import annotations

import json
import os
import resource
import socket
from pathlib import Path

import pytest

from bundle.provision import Kits, is_here, provision, renew
from bundle.templates import Wanted, find_template
from custom.errors import BundleError
from tests.bundle.conftest import Cli
from tests.ports import free_port

HOST = "server.invalid"  # resolves nowhere (RFC 6761), so no port of this machine is looked at


def test_the_command_checks_the_server_and_leaves_its_kit_clean(cli: Cli, tmp_path: Path) -> None:
    out, port = tmp_path / "out", free_port()
    done = cli("provision", "poc", out, "--sites", "a,b", "--port", str(port))
    assert done.returncode == 0, done.stderr
    assert "passed  Check FL port binding" in done.stdout
    assert "passed  Check dry run" in done.stdout
    assert sorted(os.listdir(out / "federation" / "prod_00" / "localhost")) == [
        "local",
        "readme.txt",
        "startup",
        "transfer",
    ]
    share = max(1, (os.cpu_count() or 1) // 2)
    assert f"\nOMP_NUM_THREADS={share}\n" in (out / "federation" / "prod_00" / "b" / "local" / "site.env").read_text()
    again = cli("provision", "poc", out)
    assert again.returncode == 2
    assert "exists and is not empty" in again.stderr
    assert cli("provision", "poc", out, "--renew", "--port", "1").returncode == 2
    assert "prod_01" in cli("provision", "poc", out, "--renew").stdout


def test_new_keys_for_all_under_the_same_root_and_a_site_that_came_later(tmp_path: Path) -> None:
    before = provision("poc", tmp_path / "out", Wanted(("a",), HOST))
    project = tmp_path / "out" / "project.yml"
    block = '  - name: "a"\n    type: client\n    org: "a"\n'
    project.write_text(project.read_text().replace(block, block + block.replace('"a"', '"b"')))
    after = renew(tmp_path / "out")
    assert (after.folder.name, after.sites) == ("prod_01", ("a", "b"))

    def read(kits: Kits, name: str) -> bytes:
        return (kits.folder / "a" / "startup" / name).read_bytes()

    assert read(before, "rootCA.pem") == read(after, "rootCA.pem")
    assert read(before, "client.key") != read(after, "client.key")
    assert read(before, "client.crt") != read(after, "client.crt")

    project.write_text("participants: nobody\n")
    state = (after.state / "cert.json").read_text()
    with pytest.raises(BundleError, match="FLARE refuses it"):
        renew(tmp_path / "out")
    assert (after.state / "cert.json").read_text() == state
    with pytest.raises(BundleError, match="was it provisioned there"):
        renew(tmp_path / "nothing")


def test_the_root_key_survives_a_full_disk_and_damage_is_named(tmp_path: Path) -> None:
    """This process may write 512 bytes a file meanwhile."""
    made = provision("poc", tmp_path / "out", Wanted(("a",), HOST))
    state = made.state / "cert.json"
    before = state.read_text()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            renew(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert state.read_text() == before
    assert list(made.state.iterdir()) == [state]
    state.rename(made.state / "cert.json.before")  # as a renewal leaves it that is killed at its worst moment
    state.write_text("{}")
    renew(tmp_path / "out")
    assert json.loads(state.read_text())["root_pri_key"] == json.loads(before)["root_pri_key"]
    state.write_text(before[:100])
    with pytest.raises(BundleError, match=r"cert\.json: expected the root certificate and its key"):
        renew(tmp_path / "out")


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BundleError, match=f"--port {port}: localhost: Address already in use"):
            provision("poc", tmp_path / "out", Wanted(port=port))
    assert list(tmp_path.iterdir()) == []


def test_a_host_with_too_long_a_part_is_not_here() -> None:
    assert not is_here("a" * 64, 8002)


def test_a_folder_that_holds_something_and_an_unknown_template(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="exists and is not empty"):
        provision("poc", tmp_path, Wanted(host=HOST))
    with pytest.raises(BundleError, match="sekure: no such template; there are poc, privacy, secure, secure-no-byoc"):
        find_template("sekure")
