# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Who works in a folder, asked of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from bundle import ROOT
from bundle.in_use import LOCK, MARK, held, mark, marked, users
from custom.errors import BundleError

HOLD = """
import sys
from pathlib import Path
from bundle.in_use import held
with held(Path(sys.argv[1]), "-w"):
    print("held", flush=True)
    sys.stdin.read()
"""
ORPHAN = """
import subprocess
null = subprocess.DEVNULL
child = subprocess.Popen(["sleep", "60"], start_new_session=True, stdin=null, stdout=null, stderr=null)
print(child.pid, flush=True)
"""


@contextmanager
def holding(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        yield other
        other.kill()


def refused(folder: Path) -> BundleError:
    with pytest.raises(BundleError) as error, held(folder, "-w"):
        pass
    assert error.value.code == "workspace-unusable"
    return error.value


def test_a_folder_is_held_by_one_process_which_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "ws"
    with holding(folder) as other:
        assert users(folder) == [other.pid]
        assert f"kill {other.pid}" in str(refused(folder))
        assert (folder / LOCK).read_text() == f"{other.pid}\n"
    assert users(folder) == []
    with held(folder, "-w"):
        assert users(folder) == [os.getpid()]


def test_what_a_process_that_has_ended_started_is_found_and_named(tmp_path: Path) -> None:
    """In a session of its own, as FLARE's sites; the run below the folder, as in a sweep."""
    run = tmp_path / "sweep" / "point" / "workspace"
    env = {**os.environ, MARK: mark(run)}
    told = subprocess.run([sys.executable, "-c", ORPHAN], env=env, capture_output=True, text=True, check=True).stdout
    orphan = psutil.Process(int(told))
    try:
        assert [one.pid for one in marked(run)] == [orphan.pid]
        assert marked(run.with_name("other")) == []
        for folder in (run, tmp_path / "sweep"):
            assert users(folder) == [orphan.pid]
            assert f"kill {orphan.pid}" in str(refused(folder))
        assert users(run / "deeper") == []
    finally:
        orphan.kill()
        psutil.wait_procs([orphan], timeout=10)
    assert users(run) == []


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_a_link_that_others_have_put_there_is_refused_and_its_file_left_alone(tmp_path: Path, plant: object) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "ws"
    victim.write_text("mine")
    folder.mkdir()
    plant(victim, folder / LOCK)  # type: ignore[operator]
    refused(folder)
    assert victim.read_text() == "mine"
    assert [path.name for path in folder.iterdir()] == [LOCK]


def test_a_lock_of_a_process_that_has_ended_is_none(tmp_path: Path) -> None:
    """Whatever process has its number now."""
    (tmp_path / LOCK).write_text(f"{os.getppid()}\n")
    (tmp_path / LOCK).chmod(0o600)
    assert users(tmp_path) == []
    with held(tmp_path, "-w"):
        pass
