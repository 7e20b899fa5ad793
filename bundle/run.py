# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Export a job, run it in FLARE's simulator with progress, and report; finished means finished by evidence."""

from __future__ import annotations

import itertools
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bundle.arguments import components
from bundle.command import packed
from bundle.events import Follower
from bundle.in_use import LOCK, held, in_use, users
from bundle.interrupts import ignore_interrupts, interrupts_call, raise_keyboard_interrupt
from bundle.jobs import Job, read_job
from bundle.live import Live
from bundle.report.locate import SIMULATED, Run
from bundle.report.model import Report
from bundle.report.reading import read_run
from bundle.report.text import to_text
from bundle.simulator import Simulator
from custom.data.folders import without_tilde
from custom.errors import BundleError
from custom.learning.rules import built
from custom.progress import FILE_NAME

POLL_S = 0.2


def run(
    name_or_path: str, sites: int, threads: int | None, workspace: Path | None, assignments: Sequence[str]
) -> Report | None:
    """Runs the job; prints progress and the report.

    Returns:
        The report, or None if the user stopped the run.

    Raises:
        BundleError: something is wrong that can be known before FLARE starts.
    """
    if workspace:
        check_workspace(workspace)
    name = read_job(name_or_path).name
    with tempfile.TemporaryDirectory(prefix="flare-bundle-") as temporary:
        return run_exported(packed(name_or_path, Path(temporary, name), assignments), sites, threads, workspace)


def run_exported(job: Job, sites: int, threads: int | None, workspace: Path | None) -> Report | None:
    """As `run`, of a plain job folder."""
    threads = sites if threads is None else threads
    check_sites(job, sites, threads)
    where = _make_workspace(workspace, job.name)
    with held(where, "-w"):
        check_workspace(where)
        print(f"job {job.name}: {sites} sites, {threads} at a time, in FLARE's simulator")
        print(f"workspace {where}")
        code = _simulate(job, where, sites, threads)
    report = read_run(Run(SIMULATED, where / "server" / SIMULATED, where))
    if code is None:
        typed = shlex.quote(str(where))
        print(f"stopped after {len(report.rounds)} rounds; what is left: python -m bundle report {typed}")
        if report.rounds or report.continued:
            print(f"to go on: python -m bundle resume -w {typed}")
        return None
    print(f"\n{to_text(report)}\nFLARE's output: {where / 'simulator.log'}")
    if code and report.finished:
        print(f"FLARE ended with exit code {code} after the job had finished")
    return report


def _simulate(job: Job, workspace: Path, sites: int, threads: int) -> int | None:
    """Follows the simulator to its end; the exit code, or None if the user stopped it."""
    live = Live()
    follower = Follower(workspace / "server" / SIMULATED / FILE_NAME)
    with interrupts_call(raise_keyboard_interrupt):
        simulator = Simulator(job.folder, workspace, sites, threads)
        print(f"FLARE's output goes to {simulator.log}", flush=True)
        try:
            while (code := simulator.poll()) is None:
                for event in follower.poll():
                    live.show(event)
                live.heartbeat()
                simulator.wait(POLL_S)
            for event in follower.poll():
                live.show(event)
            return code
        except KeyboardInterrupt:
            live.line("stopping FLARE's processes")
            return None
        finally:
            ignore_interrupts()
            simulator.stop()
            simulator.close()


def _make_workspace(given: Path | None, name: str) -> Path:
    """The empty folder to run in, absolute; where none is given, one that no other run has taken this second."""
    if given:
        workspace = check_workspace(given)
        workspace.mkdir(parents=True, exist_ok=True)
        return workspace
    stem = check_workspace(Path("workspace", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"), new=False)
    others = (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))
    return next(folder for folder in itertools.chain([stem], others) if _make(folder))


def _make(folder: Path) -> bool:
    """False if it is there."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    except PermissionError as error:
        raise BundleError(
            error.strerror or "no permission", code="not-writable", key=str(error.filename), remedy="choose another -w"
        ) from error
    return True


def check_workspace(workspace: Path, new: bool = True) -> Path:
    """Its absolute path.

    Raises:
        BundleError: it is in use, or FLARE could not use it.
    """
    workspace = without_tilde(workspace).absolute()
    if (
        new
        and workspace.exists()
        and (not workspace.is_dir() or any(path.name != LOCK for path in workspace.iterdir()))
    ):
        if pids := users(workspace):
            raise in_use(workspace, "-w", pids)
        held = "holds an earlier run" if (workspace / "server").is_dir() else "exists and is not empty"
        raise BundleError(
            f"{held}, and FLARE would delete it",
            code="workspace-unusable",
            key=str(workspace),
            remedy="choose another -w, or remove it first",
        )
    check_printable(workspace, "-w")
    return workspace


def check_printable(folder: Path, option: str) -> None:
    """Raises BundleError for a path that FLARE's simulator cannot pass on to its processes."""
    if not str(folder).isprintable():
        raise BundleError(
            "FLARE cannot use a path with control characters",
            code="workspace-unusable",
            key=f"{option} {str(folder)!r}",
            remedy=f"choose another {option}",
        )


def check_sites(job: Job, sites: int, threads: int) -> None:
    if sites < 1:
        raise BundleError(code="too-few-sites", key=f"-n {sites}", expected="1 or more sites", got=sites)
    if not 1 <= threads <= sites:
        raise BundleError(
            code="too-few-sites", key=f"-t {threads}", expected=f"1 to {sites}, as there are {sites} sites", got=threads
        )
    if sites < job.min_clients:
        raise BundleError(
            code="too-few-sites",
            key=f"-n {sites}",
            expected=f"at least {job.min_clients} sites (min_clients in meta.json)",
            got=sites,
            remedy=f"--set min_clients={sites} lets it start with fewer",
        )
    for workflow in job.workflows:
        needed = workflow.get("args", {}).get("min_clients", 0)
        if isinstance(needed, int) and needed > sites:
            key = f"{workflow.get('id')}.min_clients"
            raise BundleError(
                code="too-few-sites",
                key=f"-n {sites}",
                expected=f"at least {needed} sites ({key})",
                got=sites,
                remedy=f"--set {key}={sites} lets it go on with fewer",
            )
    _check_rule(job, sites)


def _check_rule(job: Job, sites: int) -> None:
    """Raises BundleError if the sites are too few for the aggregator's rule, where that is set by its name."""
    for part in components(job.configs):
        name = part.arguments.get("rule")
        is_rule = isinstance(name, str) and part.aliases().get("aggregator") == "rule"
        rule = built(name) if is_rule else None
        if rule is not None and rule.min_updates > sites:
            raise BundleError(
                code="too-few-sites",
                key=f"-n {sites}",
                expected=f"at least {rule.min_updates} sites for the aggregator {name}",
                got=sites,
                remedy="--set aggregator=weighted_mean takes any number",
            )
