# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Continue a job that ended early from its last completed round: in the simulator, or at a FLARE server."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path

from bundle.admin_kit import ADMIN, Kit, read_kit
from bundle.connection import Connection
from bundle.continuation import make_continuation
from bundle.ended_early import EndedEarly, read_ended_early
from bundle.in_use import in_use, users
from bundle.report.locate import SIMULATED, find_run
from bundle.report.model import Report
from bundle.run import check_workspace, run_exported
from custom.data.folders import without_tilde
from custom.errors import BundleError
from custom.printable import shown


def resume_in_simulator(job_id: str, workspace: Path, out: Path | None, threads: int | None) -> Report | None:
    """Runs the rest of the job in a new workspace, with as many sites as before.

    Returns:
        The report of the rest, or None if the user stopped it.

    Raises:
        BundleError: there is nothing to continue, or not enough to go on.
    """
    run = find_run(workspace, job_id)
    if run.job_id != SIMULATED:
        raise BundleError(
            "is not a workspace of the simulator",
            code="run-not-found",
            key=f"-w {workspace}",
            remedy="for a server: --server-kit DIR",
        )
    if out:
        check_workspace(out)
    if pids := users(without_tilde(workspace)):
        raise in_use(workspace, "-w", pids, code="job-state")
    with tempfile.TemporaryDirectory(prefix="flare-bundle-") as temporary:
        ended = read_ended_early(run, Path(temporary, "unpacked"))
        print(_where_it_goes_on(ended))
        sites = without_tilde(workspace).absolute()
        job = make_continuation(ended, Path(tempfile.mkdtemp(dir=temporary), str(ended.meta["name"])), sites)
        return run_exported(job, len(ended.sites), threads, out)


def resume_at_server(job_id: str, server_kit: Path, kit: Path | None, say: Callable[[str], None] = print) -> str:
    """Submits the rest of the job, and clears the entry of the dead one if FLARE lets it.

    Returns:
        The id of the new job.

    Raises:
        BundleError: there is nothing to continue, not enough to go on, or FLARE does not take it.
    """
    if not (without_tilde(server_kit) / "startup" / "fed_server.json").is_file():
        raise BundleError("is not a server's startup kit", code="kit-unusable", key=f"--server-kit {server_kit}")
    run = find_run(server_kit, job_id)
    admin = find_admin_kit(without_tilde(server_kit).absolute(), kit)
    with tempfile.TemporaryDirectory(prefix="flare-bundle-") as temporary:
        ended = read_ended_early(run, Path(temporary, "unpacked"))
        job = make_continuation(ended, Path(tempfile.mkdtemp(dir=temporary), str(ended.meta["name"])))
        say(_where_it_goes_on(ended))
        new_id = _submit(ended, job.folder, admin, say)
    say(f"submitted as {new_id} by {admin.user}; it waits for {', '.join(ended.sites)}, over which the data are split")
    say(f"to follow it: python -m bundle report {shlex.quote(str(server_kit))} --job {new_id}")
    return new_id


def _where_it_goes_on(ended: EndedEarly) -> str:
    state = ended.checkpoint
    return f"job {ended.job_id} goes on after round {state.round}/{state.num_rounds} of {shown(state.workflow)}"


def find_admin_kit(server_kit: Path, kit: Path | None) -> Kit:
    """The given kit, or the only one beside the server's.

    Raises:
        BundleError: there is none, or several, or it is not good.
    """
    if kit is not None:
        return read_kit(kit)
    found = sorted(path.parent.parent for path in server_kit.parent.glob(f"*/startup/{ADMIN}"))
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found) or "none"
        raise BundleError(
            code="kit-unusable",
            key=f"{server_kit.parent}",
            expected="one admin's kit",
            got=names,
            remedy="name one: --kit DIR",
        )
    return read_kit(found[0])


def _submit(ended: EndedEarly, job: Path, admin: Kit, say: Callable[[str], None]) -> str:
    connection = Connection(admin)
    try:
        info = connection.run(lambda session: session.get_system_info())
        if any(running.job_id == ended.job_id for running in info.job_info):
            remedy = f"wait, or: nvflare job abort {ended.job_id}"
            raise BundleError("is still running", code="job-state", key=f"job {ended.job_id}", remedy=remedy)
        here = {client.name for client in info.client_info}
        if missing := [site for site in ended.sites if site not in here]:
            say(f"not connected now: {', '.join(missing)}; the job starts when they are")
        new_id = str(connection.run(lambda session: session.submit_job(str(job))))
        _clear(ended.job_id, connection, say)
    finally:
        connection.close()
    return new_id


def _clear(job_id: str, connection: Connection, say: Callable[[str], None]) -> None:
    """Takes the dead job off FLARE's list of running ones, or says why it stays there."""
    try:
        status = str(connection.run(lambda session: session.get_job_meta(job_id)).get("status", ""))
    except BundleError as error:
        say(f"the server does not tell the status of job {job_id}: {error}")
        return
    if status not in ("RUNNING", "DISPATCHED"):
        return
    try:
        connection.run(lambda session: session.abort_job(job_id))
        say(f"job {job_id}, which was still listed as {status}, is aborted")
    except BundleError as error:
        say(
            f"job {job_id} stays listed as {status}, though it does not run: FLARE neither aborts nor deletes a job "
            f"of an earlier process of the server ({error}). It does no harm"
        )
