# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Starts FLARE's own commands, as a user would, and reads what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bundle.forked import start
from bundle.simulator import PROGRAM

ROOT = Path(__file__).resolve().parents[2]
NVFLARE = Path(sys.executable).parent / "nvflare"
DATA_SETS = ("cifar-10-batches-py", "MNIST", "qmnist", "ag_news", "femnist", "chest_xray", "pneumoniamnist.npz")
NOWHERE = "http://127.0.0.1:9"  # a proxy that refuses: the same as no network, whatever machine the tests run on


def environment(data_root: Path | str, **more: str) -> dict[str, str]:
    """One thread a process, no network, data only where the test says.

    Where there are none, `data_root` is the home, so that no place of data is given: else that would be an error.
    """
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    place = "FLARE_DATA_ROOT" if any((Path(data_root) / name).exists() for name in DATA_SETS) else "HOME"
    inherited = {name: value for name, value in os.environ.items() if name != "FLARE_DATA_ROOT"}
    return {**inherited, **proxies, "OMP_NUM_THREADS": "1", place: str(data_root), **more}


def run(command: list[str], cwd: Path, env: dict[str, str], limit_s: float = 1200) -> subprocess.CompletedProcess[str]:
    """Runs to the end, a Python forked from the tests' fork server; output and errors together in `stdout`."""
    cwd.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+") as output:
        process = start(command, cwd=str(cwd), env=env, output=output.fileno())
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        output.seek(0)
        return subprocess.CompletedProcess(command, code, output.read())


def bundle(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m bundle`, from any folder."""
    env = {**(env or dict(os.environ)), "PYTHONPATH": str(ROOT)}
    return run([sys.executable, "-m", "bundle", *arguments], cwd, env)


FLARES_SIMULATOR = [str(NVFLARE), "simulator"]  # which may hang with several threads
OUR_SIMULATOR = [sys.executable, str(PROGRAM)]


def simulate(job: Path, folder: Path, sites: int, threads: int, data_root: Path | str) -> str:
    """The simulator from an empty folder into `folder`/ws; its output."""
    Path(data_root).mkdir(parents=True, exist_ok=True)
    command = [*OUR_SIMULATOR, str(job), "-w", str(folder / "ws"), "-n", str(sites), "-t", str(threads)]
    done = run(command, folder / "empty", environment(data_root))
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def export(job: str, out: Path, *settings: str, drop_workflows: tuple[str, ...] = ()) -> Path:
    """`bundle export`, then without some workflows."""
    options = [option for setting in settings for option in ("--set", setting)]
    done = bundle("export", job, str(out), *options, cwd=out.parent)
    assert done.returncode == 0, done.stdout
    path = out / "app" / "config" / "config_fed_server.json"
    config = json.loads(path.read_text())
    config["workflows"] = [w for w in config["workflows"] if w["id"] not in drop_workflows]
    path.write_text(json.dumps(config))
    return out


def progress(workspace: Path) -> list[dict[str, Any]]:
    """The events of the job in a simulator workspace."""
    text = (workspace / "server" / "simulate_job" / "progress.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
