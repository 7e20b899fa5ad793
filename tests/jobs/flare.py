# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Starts FLARE's own commands, as a user would, and reads what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NVFLARE = Path(sys.executable).parent / "nvflare"
NOWHERE = "http://127.0.0.1:9"  # a proxy that refuses: the same as no network, whatever machine the tests run on


def environment(data_root: Path | str, **more: str) -> dict[str, str]:
    """One thread a process, no network, data only where the test says."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    return {**os.environ, **proxies, "OMP_NUM_THREADS": "1", "FLARE_DATA_ROOT": str(data_root), **more}


def run(command: list[str], cwd: Path, env: dict[str, str], limit_s: float = 400) -> subprocess.CompletedProcess[str]:
    """Runs to the end; output and errors together in `stdout`."""
    cwd.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
        check=False,
    )


def bundle(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m bundle`, from any folder."""
    env = {**(env or dict(os.environ)), "PYTHONPATH": str(ROOT)}
    return run([sys.executable, "-m", "bundle", *arguments], cwd, env)


def simulate(job: Path, folder: Path, sites: int, threads: int, data_root: Path | str) -> str:
    """`nvflare simulator` from an empty folder into `folder`/ws; its output."""
    command = [str(NVFLARE), "simulator", "-w", str(folder / "ws"), "-n", str(sites), "-t", str(threads), str(job)]
    done = run(command, folder / "empty", environment(data_root))
    if done.returncode and names_mixed_up(folder / "ws"):
        print("FLARE's simulator gave two sites one name; once more")
        remove(folder / "ws")
        done = run(command, folder / "empty", environment(data_root))
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def names_mixed_up(workspace: Path) -> bool:
    """Did a site run under another's name?

    The threads of nvflare 2.9.0's simulator share the name that they send to the process that they have just started
    (SimulatorClientRunner.do_one_task), so two that start in the same milliseconds may send the same one.
    """
    return any(
        f"identity={other.name}," in (site / "log.txt").read_text()
        for site in workspace.glob("site-*")
        for other in workspace.glob("site-*")
        if other != site and (site / "log.txt").is_file()
    )


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


def remove(folder: Path) -> None:
    """Removes what a job has left, whether or not it is there."""
    shutil.rmtree(folder, ignore_errors=True)
