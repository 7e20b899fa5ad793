# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`run`, with a stand-in for FLARE's simulator: a process that takes its arguments and writes its files."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from bundle import ROOT, simulator
from bundle.forked import OFF, SOCKET
from bundle.in_use import LOCK, held
from bundle.interrupts import interrupts_call
from bundle.live import Live
from bundle.run import run
from bundle.simulator import environment
from custom.errors import BundleError
from tests.bundle.conftest import job_events, typed

PYTHON = sys.executable
SCRIPT = """#!{python}
import os, pathlib, shutil, subprocess, sys, time
workspace = pathlib.Path(sys.argv[sys.argv.index("-w") + 1])
run = workspace / "server" / "simulate_job"
run.mkdir(parents=True)
print("hello from", os.getcwd(), sorted(os.listdir()), flush=True)
site = subprocess.Popen(["sleep", "{sleep}"], start_new_session=True)
(workspace / "pid").write_text(str(site.pid))
shutil.copyfile("{progress}", run / "progress.jsonl")
site.wait()
sys.exit({code})
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Makes the bundle start the stand-in; `fake(events, sleep, code)`."""

    def install(events: list[dict[str, object]], sleep: float = 0.1, code: int = 0) -> None:
        progress = tmp_path / "events.jsonl"
        progress.write_text("".join(json.dumps(event) + "\n" for event in events))
        script = tmp_path / "simulator"
        script.write_text(SCRIPT.format(python=PYTHON, sleep=sleep, progress=progress, code=code))
        script.chmod(0o755)
        monkeypatch.setattr(simulator.sys, "executable", str(script))
        monkeypatch.setenv(SOCKET, OFF)

    return install


def test_a_run_shows_progress_and_ends_with_the_report(
    job: Path, tmp_path: Path, fake: object, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(job_events())  # type: ignore[operator]
    workspace = tmp_path / "new" / "ws"
    report = run(str(job), 2, None, workspace, [])
    assert report is not None
    assert report.status == "completed"
    out = capsys.readouterr().out
    assert "global model after round 1: val_accuracy 0.550 (+0.400)" in out
    assert "round 2/2  2 sites  train_loss site-1 1.000  site-2 0.600  up 2.0 kB  1.5 s" in out
    log = (workspace / "simulator.log").read_text()
    assert log.startswith("hello from")
    assert log.rstrip().endswith("[]")  # an empty folder
    assert sorted(path.name for path in workspace.parent.iterdir()) == ["ws"]


def test_exit_code_0_of_flare_proves_nothing_and_another_disproves_nothing(
    job: Path, tmp_path: Path, fake: object
) -> None:
    fake(job_events()[:-1], code=0)  # type: ignore[operator]
    report = run(str(job), 2, 1, tmp_path / "a", [])
    assert report is not None
    assert not report.finished
    fake(job_events(), code=1)  # type: ignore[operator]
    report = run(str(job), 2, 1, tmp_path / "b", [])
    assert report is not None
    assert report.finished


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(
    job: Path, tmp_path: Path, fake: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(job_events())  # type: ignore[operator]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "20261122-000000")
    for _ in range(3):
        assert run(str(job), 2, 2, None, []) is not None
    stem = "small-20261122-000000"
    assert sorted(path.name for path in (tmp_path / "workspace").iterdir()) == [stem, f"{stem}-2", f"{stem}-3"]


@pytest.mark.parametrize("bad", [{"sites": 1}, {"threads": 9}, {"assignments": ["nonsense=1"]}])
def test_what_is_refused_leaves_no_folder(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError):
        run(**{"name_or_path": str(job), "sites": 2, "threads": 2, "workspace": None, "assignments": []} | bad)
    assert not (tmp_path / "workspace").exists()


def test_a_link_in_the_place_of_the_log_is_not_written_through(job: Path, tmp_path: Path, fake: object) -> None:
    """Somebody who may write to the folder puts it there while the job is exported."""
    fake(job_events())  # type: ignore[operator]
    victim, workspace = tmp_path / "victim", tmp_path / "ws"
    victim.write_text("mine")
    workspace.mkdir()
    (workspace / "simulator.log").symlink_to(victim)
    with pytest.raises(FileExistsError):
        simulator.Simulator(job, workspace, 2, 2)
    assert victim.read_text() == "mine"
    with pytest.raises(BundleError) as refused:
        run(str(job), 2, None, workspace, [])
    assert refused.value.code == "workspace-unusable"


def test_a_workspace_that_another_run_holds_is_refused_and_left_alone(job: Path, tmp_path: Path, fake: object) -> None:
    fake(job_events())  # type: ignore[operator]
    with held(tmp_path / "ws", "-w"), pytest.raises(BundleError, match=f"kill {os.getpid()}") as refused:
        run(str(job), 2, None, tmp_path / "ws", [])
    assert refused.value.code == "workspace-unusable"
    assert [path.name for path in (tmp_path / "ws").iterdir()] == [LOCK]
    assert run(str(job), 2, None, tmp_path / "ws", []) is not None


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts_call(lambda number, frame: None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def not_nohup() -> Iterator[None]:
    """Though the tests may run under it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("not_nohup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_every_process(
    job: Path, tmp_path: Path, fake: object, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(job_events()[:4], sleep=60)  # type: ignore[operator]
    workspace = tmp_path / "a workspace"
    pid_file, progress = workspace / "pid", workspace / "server" / "simulate_job" / "progress.jsonl"

    def interrupt() -> None:  # once the stand-in has written all that it writes
        while not progress.exists() or progress.read_bytes() != (tmp_path / "events.jsonl").read_bytes():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=interrupt, daemon=True).start()
    assert run(str(job), 2, 2, workspace, []) is None
    assert not psutil.pid_exists(int(pid_file.read_text()))
    assert signal.getsignal(number) == before
    assert f"stopped after 2 rounds; what is left: python -m bundle report '{workspace}'" in capsys.readouterr().out
    assert (workspace / "simulator.log").is_file()


def test_the_cores_are_shared_out_and_this_repository_is_not_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}/somewhere")
    env = environment(3)
    assert (env["OMP_NUM_THREADS"], env["PYTHONPATH"]) == ("2", "/somewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert environment(16)["OMP_NUM_THREADS"] == "5"
    assert "PYTHONPATH" not in environment(16)


def test_a_sign_of_life_fits_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer one would wrap, and what is wrapped cannot be wiped."""
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    live = Live(out)
    live.phase = "x" * 100
    live._last_output -= 2
    live.heartbeat()
    shown = out.getvalue().removeprefix("\r\x1b[K")
    assert len(shown) < 40
    assert shown.endswith(" s)")


def test_a_user_sees_life_while_nothing_happens() -> None:
    out = io.StringIO()
    live = Live(out)
    live.heartbeat()
    assert out.getvalue() == ""
    live._last_output -= 11
    live.heartbeat()
    assert "... FLARE is starting its server and the sites" in out.getvalue()


def test_a_failing_site_and_a_fatal_error_are_shown_at_once() -> None:
    out = io.StringIO()
    live = Live(out)
    for _ in range(2):
        live.show(typed({"event": "site_error", "site": "site-2", "task": "train", "reason": "x" * 500}))
    live.show(typed({"event": "fatal", "reason": "too few sites"}))
    first, second = out.getvalue().splitlines()
    assert "! site-2 at train: xxx" in first
    assert first.endswith("... (in full below)")
    assert second.endswith("! too few sites")


@pytest.mark.parametrize(("rule", "sites"), [("geometric_median", 2), ("mean_without_outliers", 2), ("multi_krum", 4)])
def test_too_few_sites_for_a_rule_are_refused_before_flare_starts(rule: str, sites: int, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    with pytest.raises(BundleError) as error:
        run("hello-pt", sites, None, workspace, ["dataset=digits", f"aggregator={rule}"])
    assert error.value.code == "too-few-sites"
    assert not workspace.exists()
