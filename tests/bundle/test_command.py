# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Commands of the bundle as processes: forked where there is a fork server, and as usual where it has died."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bundle import command
from bundle.forked import OFF, SOCKET, fork_server
from custom.errors import BundleError

WHOSE = "import os, sys; print(os.getppid(), 'torch' in sys.modules); print('no', file=sys.stderr)"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


@pytest.fixture(scope="module")
def warm() -> Iterator[tuple[str, psutil.Process]]:
    """The socket of a fork server, and its process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SOCKET, raising=False)
        with fork_server():
            yield os.environ[SOCKET], psutil.Process().children()[-1]


@pytest.fixture
def forks(warm: tuple[str, psutil.Process], monkeypatch: pytest.MonkeyPatch) -> psutil.Process:
    """The fork server that commands are forked from."""
    monkeypatch.setenv(SOCKET, warm[0])
    return warm[1]


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command is forked."""
    monkeypatch.setenv(SOCKET, OFF)


def replace_bundle(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """`python -m bundle` runs `code` from now on."""
    (folder / "bundle").mkdir()
    (folder / "bundle" / "__init__.py").touch()
    (folder / "bundle" / "__main__.py").write_text(code)
    monkeypatch.setattr(command, "ROOT", folder)


def test_an_error_of_the_bundle_is_the_one_that_is_raised(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^mnits: no such job; did you mean mnist\?"):
        command.run_bundle("export", "mnits", str(tmp_path / "out"))


def test_what_takes_too_long_is_ended_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TIMEOUT_S", 0.05)
    with pytest.raises(BundleError, match=r"python -m bundle settings took longer than 0\.05 s"):
        command.run_bundle("settings")


def test_what_breaks_is_said_in_its_last_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replace_bundle(monkeypatch, tmp_path, 'raise RuntimeError("a bug of ours")')
    with pytest.raises(BundleError, match=r"python -m bundle settings broke: RuntimeError: a bug of ours"):
        command.run_bundle("settings")


@pytest.mark.usefixtures("cold")
def test_only_what_was_printed_to_standard_output_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "import os, sys; print('é', os.listdir(), sys.argv[1:], sys.stdin.read()); print('no', file=sys.stderr)"
    replace_bundle(monkeypatch, tmp_path, code)
    assert command.run_bundle("one", "two") == "é [] ['one', 'two'] \n"


@LINUX
def test_it_is_forked(
    forks: psutil.Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replace_bundle(monkeypatch, tmp_path, WHOSE)
    for _ in range(2):
        assert command.run_bundle("settings") == f"{forks.pid} True\n"
    assert caplog.messages == []


@LINUX
@pytest.mark.usefixtures("cold")
def test_it_is_started_as_usual_once_the_fork_server_was_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replace_bundle(monkeypatch, tmp_path, WHOSE)
    monkeypatch.delenv(SOCKET)
    with fork_server():
        psutil.Process().children()[-1].kill()
        assert command.run_bundle("settings") == f"{os.getpid()} False\n"
    assert len(caplog.messages) == 1


@LINUX
def test_a_forked_command_is_the_same(
    forks: psutil.Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, forms = [], []
    for folder in (tmp_path / "forked", tmp_path / "usual"):
        command.run_bundle("export", "mnist", str(folder / "mnist"), "--set", "num_rounds=2")
        forms.append(command.run_bundle("settings", "mnist", "--json"))
        with pytest.raises(BundleError) as caught:
            command.run_bundle("export", "mnits", str(folder / "mnits"))
        assert caught.value.code == "job-not-found"
        files.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
        monkeypatch.setenv(SOCKET, OFF)
    assert caplog.messages == []
    assert len(files[0]) > 5
    assert files[0] == files[1]
    assert forms[0] == forms[1]


@LINUX
def test_a_forked_command_that_takes_too_long_is_ended(
    forks: psutil.Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace_bundle(monkeypatch, tmp_path, "")
    command.run_bundle("settings")  # the fork server has imported everything
    (tmp_path / "bundle" / "__main__.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr(command, "TIMEOUT_S", 5.0)
    with pytest.raises(BundleError) as caught:
        command.run_bundle("settings")
    assert caught.value.code == "command-failed"
    assert forks.children() == []
