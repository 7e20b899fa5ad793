# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The password file: what is kept of a password, and which files are refused."""

from __future__ import annotations

import hashlib
import io
import stat
import sys
from base64 import b64decode
from pathlib import Path

import pytest

from custom.errors import BundleError
from dashboard import __main__ as command
from dashboard.passwords import hash_password, matches, random_password, read_password, write_password

PASSWORD = "correct horse battery"


def test_a_password_matches_its_hash_and_no_other_does() -> None:
    hashed = hash_password(PASSWORD)
    assert matches(PASSWORD, hashed)
    assert not matches(PASSWORD + " ", hashed)
    assert not matches("", hashed)
    assert PASSWORD not in hashed


def test_the_hash_is_scrypt() -> None:
    """Against the standard library, with the numbers that the line itself names."""
    kind, cost, block, parallel, salt, key = hash_password(PASSWORD).split("$")
    cost_of = {"n": int(cost), "r": int(block), "p": int(parallel)}
    assert kind == "scrypt"
    assert cost_of["n"] * cost_of["r"] * 128 == 16 * 2**20  # bytes that each guess needs
    expected = hashlib.scrypt(PASSWORD.encode(), salt=b64decode(salt), maxmem=2**26, dklen=32, **cost_of)
    assert b64decode(key) == expected


def test_the_same_password_has_another_hash_each_time() -> None:
    assert hash_password(PASSWORD) != hash_password(PASSWORD)


@pytest.mark.parametrize("password", ["short", "x" * 1001])
def test_refuses_a_length(password: str) -> None:
    with pytest.raises(BundleError, match="12 to 1000 characters"):
        hash_password(password)


def test_random_passwords_differ_and_are_long_enough() -> None:
    made = {random_password() for _ in range(20)}
    assert len(made) == 20
    assert all(len(password) == 24 and password.isalnum() for password in made)


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "password"
    hashed = write_password(path, PASSWORD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_password(path) == hashed
    assert PASSWORD not in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["password"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_refuses_a_file_that_others_may_touch(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "password"
    write_password(path, PASSWORD)
    path.chmod(mode)
    with pytest.raises(BundleError, match="chmod 600"):
        read_password(path)


@pytest.mark.parametrize("text", ["", "hunter2", "md5$1$2$3$4$5", "scrypt$a$8$1$AA==$AA=="])
def test_refuses_a_file_that_holds_no_hash(tmp_path: Path, text: str) -> None:
    path = tmp_path / "password"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(BundleError, match="is not a password file"):
        read_password(path)


def test_says_how_to_set_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="--set-password"):
        read_password(tmp_path / "none")


def test_set_password_reads_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "password"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSWORD}\n"))
    assert command.main(["--set-password", "--password-file", str(path)]) == 0
    assert matches(PASSWORD, read_password(path))
    assert PASSWORD not in capsys.readouterr().out
