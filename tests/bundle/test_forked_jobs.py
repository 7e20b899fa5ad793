# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The processes of a server's or site's jobs, forked."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from nvflare.apis.job_launcher_spec import JobReturnCode
from nvflare.app_common.job_launcher import process_launcher
from nvflare.app_common.job_launcher.process_launcher import ProcessHandle

from bundle.forked import PARENT, start
from bundle.forked_jobs import ENTRY, ForkedJobs, fork_jobs, spawn

SHOW = f"""
import os
with open(os.environ["OUT"], "w") as file:
    print(os.environ.get("{PARENT}"), os.getppid(), os.getsid(0) == os.getpid(), file=file)
raise SystemExit(int(os.environ["CODE"]))
"""
LOG = {"id": "log", "path": "a.Log", "args": {}}


def test_it_is_added_once_and_nothing_is_lost(tmp_path: Path) -> None:
    for name in ("server", "site-1", "admin"):
        (tmp_path / name / "local").mkdir(parents=True)
    (tmp_path / "server/local/resources.json.default").write_text('{"format_version": 2, "components": []}')
    (tmp_path / "site-1/local/resources.json.default").write_text("{}")
    (tmp_path / "site-1/local/resources.json").write_text(json.dumps({"components": [LOG]}))
    for _ in range(2):
        fork_jobs(tmp_path)
        assert json.loads((tmp_path / "server/local/resources.json").read_text()) == {
            "format_version": 2,
            "components": [ENTRY],
        }
        assert json.loads((tmp_path / "site-1/local/resources.json").read_text()) == {"components": [LOG, ENTRY]}
    assert list((tmp_path / "admin/local").iterdir()) == []


def test_it_takes_the_place_of_flares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_launcher, "spawn_process", None)
    module, name = ENTRY["path"].rsplit(".", 1)  # type: ignore[attr-defined]
    assert (module, name) == (ForkedJobs.__module__, ForkedJobs.__name__)
    ForkedJobs()
    assert process_launcher.spawn_process is spawn


@pytest.mark.parametrize(("code", "told"), [(0, JobReturnCode.SUCCESS), (1, JobReturnCode.EXECUTION_ERROR)])
def test_a_forked_process_is_one_to_flare(warm: None, tmp_path: Path, code: int, told: int) -> None:
    """Who forked it, that it leads a session, and its exit code."""
    program, out = tmp_path / "program.py", tmp_path / "out"
    program.write_text(SHOW)
    env = {**os.environ, "OUT": str(out), "CODE": str(code)}
    handle = ProcessHandle(process_adapter=spawn([sys.executable, str(program)], env))
    handle.wait()
    assert handle.poll() == told
    forked_by, parent, leads = out.read_text().split()
    assert (forked_by, leads) == (parent, "True")
    assert int(parent) != os.getpid()


def test_it_is_ended_as_flare_ends_it(warm: None, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import time; time.sleep(600)")
    handle = ProcessHandle(process_adapter=spawn([sys.executable, str(program)], dict(os.environ)))
    assert handle.poll() == JobReturnCode.UNKNOWN
    handle.terminate()
    handle.wait()
    assert handle.poll() != JobReturnCode.UNKNOWN


def test_the_group_of_a_process_is_its_own_at_once(warm: None, tmp_path: Path) -> None:
    """FLARE ends that, which must not be the fork server's, however early."""
    program = tmp_path / "program.py"
    program.write_text("import time; time.sleep(600)")
    for _ in range(50):
        process = start([sys.executable, str(program)], env=dict(os.environ), session=True)
        assert os.getpgid(process.pid) == process.pid
        process.kill()
        process.wait(60)
