# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A simulator that is killed in the middle of a job, and the rest of the job in another one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from bundle.forked import SOCKET
from tests.fault.ended_early import BEST, FINAL, SETTINGS, TOLERANCE, difference, kill, wait_for_rounds
from tests.jobs.flare import ROOT, bundle, environment, progress

pytestmark = [pytest.mark.e2e, pytest.mark.fault]
PROGRESS = Path("server", "simulate_job", "progress.jsonl")
OPTIONS = [option for setting in SETTINGS for option in ("--set", setting)]


@contextlib.contextmanager
def running(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """hello-pt by `bundle run` in `folder`/ws, its output in `folder`/output; killed at the end, if it still runs."""
    env = {**environment(folder), "PYTHONPATH": str(ROOT)}
    env.pop(SOCKET, None)  # a fork server of its own, so that all are its children
    command = [sys.executable, "-m", "bundle", "run", "hello-pt", "-w", str(folder / "ws"), *OPTIONS, *options]
    with (folder / "output").open("wb") as output:
        started = subprocess.Popen(command, cwd=folder, env=env, stdout=output, start_new_session=True)
    try:
        yield started
    finally:
        kill([psutil.Process(started.pid)] if started.poll() is None else [])
        started.wait(10)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a job of 4 rounds whose processes were killed after round 2."""
    folder = tmp_path_factory.mktemp("killed")
    with running(folder):
        wait_for_rounds(folder / "ws" / PROGRESS, 2)
    return folder / "ws"


def test_the_rest_leads_to_the_same_models(killed: Path, tmp_path: Path) -> None:
    env = environment(tmp_path)
    whole = bundle("run", "hello-pt", "-w", str(tmp_path / "whole"), *OPTIONS, cwd=tmp_path, env=env)
    assert whole.returncode == 0, whole.stdout
    rest = bundle("resume", "-w", str(killed), "-o", str(tmp_path / "rest"), cwd=tmp_path, env=env)
    assert rest.returncode == 0, rest.stdout
    assert "continues job simulate_job after round" in rest.stdout
    for name in (FINAL, BEST):
        one, other = (tmp_path / run / "server" / "simulate_job" / name for run in ("whole", "rest"))
        assert difference(one, other) <= TOLERANCE
    rounds = [event["round"] for event in progress(tmp_path / "rest") if event["event"] == "round"]
    assert rounds == list(range(rounds[0], 5))
    assert rounds[0] in (2, 3), "killed while the second checkpoint was written, or after that"
    best = {
        run: [e["value"] for e in progress(tmp_path / run) if e["event"] == "best"][-1] for run in ("whole", "rest")
    }
    assert best["rest"] == pytest.approx(best["whole"])

    again = bundle("resume", "-w", str(tmp_path / "rest"), cwd=tmp_path, env=env)
    assert again.returncode == 2
    assert "there is nothing to continue" in again.stdout


@pytest.mark.quick
def test_a_checkpoint_cut_short_is_named_and_nothing_is_started(killed: Path, tmp_path: Path) -> None:
    file = killed / "server" / "simulate_job" / "checkpoint.pt"
    content = file.read_bytes()
    try:
        file.write_bytes(content[: len(content) // 2])
        done = bundle("resume", "-w", str(killed), "-o", str(tmp_path / "rest"), cwd=tmp_path)
    finally:
        file.write_bytes(content)
    assert done.returncode == 2
    assert f"{file}: cannot be loaded safely" in done.stdout
    assert not (tmp_path / "rest").exists()


@pytest.mark.quick
def test_no_model_is_half_written(killed: Path) -> None:
    for path in (killed / "server" / "simulate_job").rglob("*.pt"):
        assert torch.load(path, weights_only=True)["model"], path
    report = killed.parent / "report.json"
    assert bundle("report", str(killed), "--json", str(report), cwd=killed.parent).returncode == 0
    assert json.loads(report.read_text())["status"] == "incomplete"
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(killed) in " ".join(p.info["cmdline"] or [])]


@pytest.mark.quick
def test_all_sites_are_killed(tmp_path: Path) -> None:
    """FLARE's simulator ends with 0 then."""
    with running(tmp_path, "--set", "train.local_epochs=5") as started:
        wait_for_rounds(tmp_path / "ws" / PROGRESS, 1)
        ours = psutil.Process(started.pid).children(recursive=True)
        sites = [one for one in ours if "--client" in one.cmdline()]
        assert len(sites) == 2
        kill(sites)
        assert started.wait(180) not in (0, None)
    told = (tmp_path / "output").read_text()
    assert "status    incomplete" in told, told[-3000:]
    assert "completed" not in told.partition("status ")[2].partition("\n")[0]
