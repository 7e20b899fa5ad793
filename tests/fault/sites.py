# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What may happen to the processes of a site in a provisioned system, and what one asks that system meanwhile."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.fault.ended_early import kill
from tests.jobs.deployment import LEAD, Deployment
from tests.jobs.flare import bundle, run

WAIT = """
import sys
from nvflare.fuel.flare_api.flare_api import new_secure_session
kit, user, job_id = sys.argv[1:]
session = new_secure_session(user, kit, timeout=60)
try:
    session.monitor_job(job_id, timeout=240)
    print("STATUS", session.get_job_meta(job_id)["status"])
finally:
    session.close()
"""


def submit(system: Deployment, job: Path) -> str:
    """The id of the job."""
    answer = re.search(r"DONE (\S+)", told := system.ask(LEAD, "submit_job", str(job)))
    assert answer, told[-2000:]
    return answer[1]


def abort(system: Deployment, job_id: str) -> None:
    """As its lead does."""
    assert "DONE" in (told := system.ask(LEAD, "abort_job", job_id)), told[-2000:]


def wait(system: Deployment, job_id: str) -> str:
    """Until FLARE says that the job has ended; the status that FLARE gives it."""
    script = [sys.executable, "-c", WAIT, str(system.folder / LEAD), LEAD, job_id]
    answer = re.search(r"STATUS (FINISHED:\S+)", told := run(script, system.work / "empty", system.env).stdout)
    assert answer, told[-2000:]
    return answer[1]


def resume(system: Deployment, job_id: str, folder: Path) -> tuple[int, str]:
    """Exit code and output of `bundle resume` for a job of this system."""
    kit = ("--server-kit", str(system.folder / system.server), "--kit", str(system.folder / LEAD))
    done = bundle("resume", job_id, *kit, cwd=folder)
    return done.returncode, done.stdout


def continuation(told: str) -> str:
    """The id of the new job, from what `bundle resume` said."""
    found = re.search(r"submitted as (\S+) by", told)
    assert found, told
    return found[1]


def archive_of(system: Deployment, job_id: str) -> Path:
    """The zip that the server packs the job's run folder into when it has ended."""
    archive = system.folder / system.server / "jobs-storage" / job_id / "workspace"
    until(archive.is_file, f"no {archive}", 30)
    return archive


def report(system: Deployment, job_id: str, folder: Path) -> dict[str, Any]:
    """The object of `bundle report --json` of a job that has ended, with the text under `shown`."""
    archive_of(system, job_id)
    out = folder / f"{job_id}.json"
    kit = str(system.folder / system.server)
    done = bundle("report", kit, "--job", job_id, "--json", str(out), cwd=folder)
    assert out.is_file(), done.stdout
    return {**json.loads(out.read_text()), "shown": done.stdout}


def events(system: Deployment, job_id: str) -> list[dict[str, Any]]:
    """Of the job's progress.jsonl, while it runs or after that."""
    path = system.folder / system.server / job_id / "progress.jsonl"
    if path.is_file():
        text = path.read_text()
    else:
        with zipfile.ZipFile(archive_of(system, job_id)) as packed:
            text = packed.read("progress.jsonl").decode()
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def contributors(system: Deployment, job_id: str) -> list[list[str]]:
    """The sites that counted, by round."""
    return [sorted(event["sites"]) for event in events(system, job_id) if event["event"] == "round"]


def models(system: Deployment, job_id: str, folder: Path) -> list[Path]:
    """What a job that has ended has saved at the server: FLARE's files of the global model, and the checkpoint."""
    with zipfile.ZipFile(archive_of(system, job_id)) as packed:
        names = [name for name in packed.namelist() if re.fullmatch(r"(app_server/[^/]+|checkpoint)\.pt", name)]
        packed.extractall(folder, names)
    return [folder / name for name in names]


def job_log(system: Deployment, name: str, job_id: str) -> str:
    """Of the server's or a site's process of the job, while it runs."""
    path = system.folder / name / job_id / "log.txt"
    return path.read_text(errors="replace") if path.is_file() else ""


def wait_for_task(system: Deployment, job_id: str, site: str, task: str, count: int = 1) -> None:
    """Until the server has given that task to the site for the `count`th time."""
    text = f"assigned task to client {site}: name={task},"
    limit_s = 120.0
    until(lambda: job_log(system, system.server, job_id).count(text) >= count, f"{task} {count} not sent", limit_s)


def until(holds: Callable[[], bool], problem: str, limit_s: float, every_s: float = 0.05) -> None:
    """Waits; an AssertionError with `problem` if it takes too long."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"{problem} within {limit_s:.0f} s"
        time.sleep(every_s)


def processes_of(system: Deployment, site: str) -> list[psutil.Process]:
    """All of the site: FLARE's own and those of its jobs."""
    parent = psutil.Process(system.processes[site].pid)
    return [parent, *parent.children(recursive=True)]


def kill_site(system: Deployment, site: str) -> None:
    """As when the power fails."""
    kill([psutil.Process(system.processes[site].pid)])
    system.processes[site].wait(10)


def start_site(system: Deployment, site: str, **environment: str) -> None:
    """Again, after `kill_site`; returns when the server knows it."""
    (system.folder / site / "log.txt").unlink(missing_ok=True)
    system.start(site, **environment)
    system.wait_for("Successfully registered client", [site])


def freeze(system: Deployment, site: str) -> list[psutil.Process]:
    """SIGSTOP to all processes of a site: it neither computes nor answers, and its connections stay."""
    stopped = processes_of(system, site)
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    return stopped


def thaw(stopped: list[psutil.Process]) -> None:
    """SIGCONT to those that `freeze` has stopped."""
    for process in stopped:
        if process.is_running():
            process.send_signal(signal.SIGCONT)
