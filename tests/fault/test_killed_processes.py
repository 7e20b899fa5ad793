# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`bundle run` and each of the processes that it starts, killed in turn; and workspaces that are not its alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from bundle.forked import SOCKET
from bundle.in_use import MARK, users
from tests.fault.ended_early import wait_for_rounds
from tests.fault.sites import until
from tests.jobs.flare import ROOT, bundle, environment

pytestmark = [pytest.mark.e2e, pytest.mark.fault]
PROGRESS = Path("server", "simulate_job", "progress.jsonl")
DIGITS = ("--set", "dataset=digits")
START_S = 600  # on a busy machine; for nothing that is tested
LIMIT_S = 120  # in which a run ends when it cannot go on
KILLED = "its process was killed by signal 9"


class Started:
    """`bundle run` in `folder`/ws."""

    def __init__(
        self, folder: Path, *options: str, job: str = "hello-pt", workspace: Path | None = None, forks: str = "on"
    ) -> None:
        self.workspace, self.folder = workspace or folder / "ws", folder
        self.output = folder / f"output-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "bundle", "run", job, "-w", str(self.workspace), *DIGITS, *options]
        env = {**environment(folder), "PYTHONPATH": str(ROOT)}
        env.pop(SOCKET, None)  # its own fork server
        if forks == "off":
            env[SOCKET] = forks
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=output, stderr=output, start_new_session=True
            )

    def events(self) -> list[dict[str, Any]]:
        path = self.workspace / PROGRESS
        lines = path.read_text().splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def processes(self) -> list[psutil.Process]:
        """All that it has started, the oldest first; by their environment, whoever their parent is."""
        value = f"{self.process.pid} {self.workspace}"
        found = [one for one in psutil.process_iter(["environ"]) if (one.info["environ"] or {}).get(MARK) == value]
        return sorted(found, key=lambda one: (one.create_time(), one.pid))

    def site(self, name: str) -> psutil.Process | None:
        for process in self.processes():
            command = process.cmdline() if process.is_running() else []
            if "--client" in command and command[command.index("--client") + 1] == name:
                return process
        return None

    def wait_for_workflow(self, name: str) -> None:
        until(lambda: any(e.get("workflow") == name for e in self.events()), f"no {name}: {self.told()}", START_S)

    def kill_site(self, name: str) -> None:
        until(lambda: self.site(name) is not None, f"no process of {name}", 60)
        site = self.site(name)
        assert site is not None
        site.kill()

    def told(self) -> str:
        return self.output.read_text()

    def end(self, limit_s: float = LIMIT_S) -> int:
        """Its exit code; nothing may be left of it."""
        code = self.process.wait(limit_s)
        assert not self.processes()
        return code

    def report(self) -> dict[str, Any]:
        out = self.folder / f"report-{time.monotonic_ns()}.json"
        assert bundle("report", str(self.workspace), "--json", str(out), cwd=self.folder).returncode == 0
        found: dict[str, Any] = json.loads(out.read_text())
        return found


@contextmanager
def started(folder: Path, *options: str, **more: Any) -> Iterator[Started]:
    run = Started(folder, *options, **more)
    try:
        yield run
    finally:
        for process in [psutil.Process(run.process.pid), *run.processes()] if run.process.poll() is None else []:
            process.kill()
        run.process.wait(10)


@pytest.mark.parametrize("phase", ["pre_train", "scatter_and_gather", "closing_validation", "cross_site_validate"])
def test_the_others_finish_and_the_report_names_the_lost_site(tmp_path: Path, phase: str) -> None:
    with started(tmp_path, "-n", "3", "--set", "num_rounds=2") as run:
        run.wait_for_workflow(phase)
        run.kill_site("site-2")
        assert run.end(START_S) == 0, run.told()
    report = run.report()
    in_model = phase in ("closing_validation", "cross_site_validate")
    assert report["status"] == ("completed" if in_model else "completed without site-2")
    assert [error for error in report["errors"] if error.startswith("site-2 at") and KILLED in error]
    assert len(report["rounds"]) == 2
    assert "site-2" not in report["cross_site"]["SRV_FL_global_model.pt"] or in_model


def test_the_others_finish_when_a_site_is_lost_while_it_fine_tunes(tmp_path: Path) -> None:
    options = ("-n", "3", "--set", "num_rounds=1", "--set", "local_only=false")
    with started(tmp_path, *options, job="fl-plus-ft") as run:
        run.wait_for_workflow("fine_tune")
        run.kill_site("site-2")
        assert run.end(START_S) == 0, run.told()
    report = run.report()
    assert report["status"] == "completed without site-2"
    assert any(error.startswith("site-2 at fine_tune") and KILLED in error for error in report["errors"])


@pytest.mark.parametrize("threads", ["1", "2"])
def test_with_fewer_threads_than_sites_only_a_process_that_is_killed_is_a_loss(tmp_path: Path, threads: str) -> None:
    """A process for each task: their normal ends are none, and one that is killed is not started again."""
    with started(tmp_path, "-n", "3", "-t", threads, "--set", "num_rounds=2") as run:
        run.wait_for_workflow("scatter_and_gather")
        run.kill_site("site-2")
        assert run.end(START_S) == 0, run.told()
    report = run.report()
    assert report["status"] == "completed without site-2"
    assert [sorted(event["sites"]) for event in run.events() if event["event"] == "round"] == [["site-1", "site-3"]] * 2
    assert [event["site"] for event in run.events() if event["event"] == "site_error"] == ["site-2"]


@pytest.mark.parametrize("forks", ["on", "off"])
@pytest.mark.parametrize("number", range(3))
def test_each_process_is_killed_in_turn(tmp_path: Path, number: int, forks: str) -> None:
    """FLARE's program, which is the server, and two sites, without one of which the job cannot go on."""
    with started(tmp_path, "--set", "num_rounds=3", forks=forks) as run:
        wait_for_rounds(run.workspace / PROGRESS, 1, START_S)
        processes = run.processes()
        assert len(processes) == 3, [one.cmdline() for one in processes]
        processes[number].kill()
        assert run.end(LIMIT_S) == 1, run.told()
    report = run.report()
    assert report["status"] == "incomplete", report["errors"]
    assert "killed by signal 9" in report["errors"][0]
    assert "killed by signal 9" in " ".join(run.told().split())


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_fork_server_is_killed_and_the_run_goes_on_later(tmp_path: Path, end: signal.Signals) -> None:
    with started(tmp_path, "--set", "num_rounds=3") as run:
        wait_for_rounds(run.workspace / PROGRESS, 1, START_S)
        (server,) = psutil.Process(run.process.pid).children()
        assert "fork_server.py" in " ".join(server.cmdline())
        server.send_signal(end)
        assert run.end(20) == 1, run.told()
    report = run.report()
    assert report["status"] == "incomplete"
    assert "the fork server has ended" in report["errors"][0]
    rest = bundle("resume", "-w", str(run.workspace), "-o", str(tmp_path / "rest"), cwd=tmp_path)
    assert rest.returncode == 0, rest.stdout


@pytest.mark.parametrize("forks", ["on", "off"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_no_process_outlives_bundle_run(tmp_path: Path, number: signal.Signals, forks: str) -> None:
    """Not one that is stopped, either."""
    with started(tmp_path, forks=forks) as run:
        wait_for_rounds(run.workspace / PROGRESS, 1, START_S)
        assert len(run.processes()) == 3
        run.processes()[-1].suspend()
        run.process.send_signal(number)
        run.process.wait(20)
        until(lambda: not run.processes(), "processes are left", 10)
    assert users(run.workspace) == []


def test_of_two_runs_at_once_the_second_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    with started(tmp_path, "--set", "num_rounds=1") as first, started(tmp_path, "--set", "num_rounds=1") as second:
        runs = {first.process: first, second.process: second}
        until(lambda: any(process.poll() is not None for process in runs), "none is refused", START_S)
        refused, other = sorted(runs.values(), key=lambda run: run.process.poll() is None)
        assert refused.process.returncode == 2, refused.told()
        assert f"kill {other.process.pid}" in refused.told()
        assert "[workspace-unusable]" in refused.told()
        rest = bundle("resume", "-w", str(other.workspace), "-o", str(tmp_path / "rest"), cwd=tmp_path)
        assert rest.returncode == 2
        assert f"kill {other.process.pid}" in rest.stdout
        assert "[job-state]" in rest.stdout
        assert other.end(START_S) == 0, other.told()
    assert other.report()["status"] == "completed"


@contextmanager
def mounted(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_workspace_that_is_a_mount_point_in_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    """As `docker run -v DIR:/ws` for a user who may not write to /."""
    with mounted(tmp_path / "parent", "1m") as parent, mounted(parent / "ws", "300m") as workspace:
        subprocess.run(["mount", "-o", "remount,ro", str(parent)], check=True)
        with started(tmp_path, "--set", "num_rounds=1", workspace=workspace) as run:
            assert run.end(START_S) == 0, run.told()
        assert (workspace / "simulator.log").read_text()
        assert os.listdir(parent) == ["ws"]


@pytest.mark.parametrize("size", ["4k", "256k", "3500k"])
def test_a_disk_that_is_full_is_named(tmp_path: Path, size: str) -> None:
    """With no room for one line of a log, while FLARE copies the job, and when the first model is written."""
    with (
        mounted(tmp_path / "disk", size) as disk,
        started(tmp_path, "--set", "num_rounds=2", workspace=disk / "w") as run,
    ):
        assert run.end(START_S) in (1, 2)
        told = " ".join(run.told().lower().split())
    assert "no space left" in told
    assert told.count("no space left") < 10  # and not once for each file
