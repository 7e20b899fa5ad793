# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Exit codes of the real command line: 0 is good, 1 is not finished, 2 is bad input; never a stack trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from resource import RLIMIT_FSIZE, setrlimit

import pytest

from bundle import ROOT
from bundle.__main__ import _typed
from bundle.forked import SOCKET
from tests.bundle.conftest import Cli
from tests.fault.sites import until


def test_export_works_from_any_folder(cli: Cli, job: Path, tmp_path: Path) -> None:
    done = cli("export", job, tmp_path / "out", "--set", "num_rounds=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "app" / "custom" / "controllers" / "initialize_global_weights.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "nope", "out"), "nope: no such job"),
        (("export", "JOB", "JOB"), "exists and is not empty"),
        (("export", "JOB", "out", "--set", "num_rouns=3"), "did you mean num_rounds?"),
        (("run", "JOB", "-n", "1"), "expected at least 2 sites (min_clients in meta.json), got 1"),
        (("run", "JOB", "-n", "0"), "expected 1 or more sites, got 0"),
        (("run", "JOB", "-t", "3"), "expected 1 to 2, as there are 2 sites, got 3"),
        (("run", "JOB", "-w", "JOB"), "exists and is not empty, and FLARE would delete it"),
        (("run", "JOB", "-w", "a\nb"), "[workspace-unusable]"),
        (("run", "JOB", "--set", "min_clients=3"), "expected at least 3 sites (rounds.min_clients), got 2"),
        (("run", "JOB", "--html", "."), "is a folder"),
        (("run", "JOB", "--html", "-"), "-: is not a file; give the file to write"),
        (
            ("sweep", "JOB", "-o", "out", "--grid", "num_rouns=1,2"),
            "error: --grid num_rouns: the job has no such argument",
        ),
        (("report", "."), "there is no job here"),
        (("report", "missing"), "no such folder"),
        (("link", "missing"), "no such job"),
        (("data", "mnits", "out"), "mnits: no such data set; there are: cifar10, mnist, femnist"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(
    cli: Cli, job: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = sorted(job.rglob("*"))
    done = cli(*(str(job) if argument == "JOB" else argument for argument in arguments))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "\n\n" not in done.stderr
    assert sorted(job.rglob("*")) == before


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing_else(job: Path, tmp_path: Path, closed: str) -> None:
    """With a fork server of its own, whose first file would be the standard input."""
    script = f'exec "$0" -m bundle run {job} --set num_rouns=3 {closed}'
    env = {name: value for name, value in os.environ.items() if name != SOCKET} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", script, sys.executable], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    if "2>&-" not in closed:
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_before_training_leaves_nothing(job: Path, tmp_path: Path, number: int) -> None:
    """While the fork server imports."""
    (tmp_path / "temporary").mkdir()
    env = {name: value for name, value in os.environ.items() if name != SOCKET}
    env |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-m", "bundle", "run", str(job), "-w", str(tmp_path / "ws")]
    process = subprocess.Popen(
        command,
        env=env,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # which nohup ignores
    )
    until(lambda: list((tmp_path / "temporary").glob("flare-bundle-*/fork")) != [], "no fork server", 60)
    process.send_signal(number)
    assert process.stderr
    assert process.stderr.read() == "interrupted\n"
    assert process.wait(60) == 130
    assert list((tmp_path / "temporary").glob("flare-bundle-*")) == []
    assert not (tmp_path / "ws").exists()


def test_a_name_with_a_slash_is_refused(cli: Cli, job: Path, tmp_path: Path) -> None:
    (job / "meta.json").write_text(json.dumps({"name": "a/b", "deploy_map": {"app": ["@ALL"]}}))
    done = cli("export", job, tmp_path / "out")
    assert done.returncode == 2
    assert "got 'a/b'" in done.stderr


def test_a_copy_that_failed_names_the_first_file_and_why() -> None:
    reasons = [("/a", "/b", "[Errno 28] No space left on device: '/a' -> '/b'"), ("/c", "/d", "[Errno 13] no")]
    error = _typed(shutil.Error(reasons))
    assert (error.code, error.key) == ("disk-full", "/b")
    assert _typed(shutil.Error(reasons[1:])).code == "not-writable"
    assert _typed(shutil.Error([("/a", "/b", "odd")])).code == "file-unusable"


def test_a_full_disk_is_one_line_and_leaves_the_old_file(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    """A real write error: the process may write 200 bytes a file."""
    report = tmp_path / "report.json"
    report.write_text("old")
    done = cli("report", workspace, "--json", report, preexec_fn=lambda: setrlimit(RLIMIT_FSIZE, (200, 200)))
    assert done.returncode == 2
    assert done.stderr == f"error: {report}: File too large [file-unusable]\n"
    assert report.read_text() == "old"
    assert not list(tmp_path.glob(".report*"))


def test_a_file_where_no_folder_can_be_made(cli: Cli, workspace: Path) -> None:
    done = cli("report", workspace, "--json", "/dev/full/report.json")
    assert done.returncode == 2
    assert done.stderr.startswith("error: /dev/full")
    assert "Traceback" not in done.stderr


def test_report_writes_numbers_and_page(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    done = cli("report", workspace, "--json", tmp_path / "r" / "report.json", "--html", tmp_path / "report.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert "status    completed" in done.stdout
    content = json.loads((tmp_path / "r" / "report.json").read_text())
    assert content["cross_site"]["SRV_FL_global_model.pt"] == {"site-1": {"test_accuracy": 0.7}}
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["report.json"]


def test_a_link_and_a_pipe_are_written_to_and_not_replaced(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    target, link, pipe = (tmp_path / name for name in ("target.json", "link.json", "pipe"))
    target.write_text("old")
    link.symlink_to(target)
    os.mkfifo(pipe)
    assert cli("report", workspace, "--json", link).returncode == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())["status"] == "completed"
    with ThreadPoolExecutor() as threads:
        read = threads.submit(pipe.read_text)
        assert cli("report", workspace, "--json", pipe).returncode == 0
        assert read.result() == target.read_text()
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-w", "ws", "--kit", "kit"], "--kit: has no meaning with -w"),
        (["ID", "--server-kit", "kit", "-o", "out"], "-o: has no meaning with --server-kit"),
        (["ID", "--server-kit", "kit", "-t", "1"], "-t: has no meaning with --server-kit"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(cli: Cli, arguments: list[str], named: str) -> None:
    done = cli("resume", *arguments)
    assert done.returncode == 2
    assert named in done.stderr


def test_a_dash_prints_the_numbers_and_nothing_else(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    done = cli("report", workspace, "--json", "-", "--html", tmp_path / "report.html")
    assert (done.returncode, done.stderr) == (0, f"wrote {tmp_path / 'report.html'}\n")
    assert json.loads(done.stdout)["status"] == "completed"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_link_check_tells_by_its_exit_code(cli: Cli, job: Path) -> None:
    assert cli("link", "--check", job).returncode == 1
    assert cli("link", job).returncode == 0
    assert cli("link", "--check", job).returncode == 0
