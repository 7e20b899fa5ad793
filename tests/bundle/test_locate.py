# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Run folders are found in a simulator workspace, a POC, a server kit, FLARE's job store and a download."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bundle.report.locate import find_run
from bundle.report.reading import read_report
from custom.errors import BundleError
from tests.bundle.conftest import job_events, write_run


def make_kit(root: Path) -> Path:
    """A provisioned project: `<root>/example_project/prod_00/` with a server and a site."""
    kit = root / "example_project" / "prod_00" / "server"
    (kit / "startup").mkdir(parents=True)
    (kit / "startup" / "fed_server.json").write_text("{}")
    (kit / "local").mkdir()
    configure(kit, {"id": "job_manager", "args": {"uri_root": str(root / "store")}})
    return kit


def configure(kit: Path, *components: dict[str, Any]) -> None:
    (kit / "local" / "resources.json").write_text(json.dumps({"components": [{"id": "x"}, *components]}))


def archive(run: Path, stored: Path) -> None:
    """As FLARE keeps a job that has ended."""
    stored.mkdir(parents=True)
    (stored / "meta").write_text("{}")
    with zipfile.ZipFile(stored / "workspace", "w") as packed:
        for path in (path for path in run.rglob("*") if path.is_file()):
            packed.write(path, path.relative_to(run))


@pytest.mark.parametrize("below", [".", "server", "server/simulate_job"])
def test_a_simulator_workspace_and_the_folders_in_it(workspace: Path, below: str) -> None:
    assert find_run(workspace / below).folder == workspace / "server" / "simulate_job"


@pytest.mark.parametrize("place", [".", "example_project/prod_00", "example_project/prod_00/server"])
def test_a_running_job_of_a_kit_and_of_a_poc(tmp_path: Path, place: str) -> None:
    kit = make_kit(tmp_path)
    write_run(kit / "abc", job_events())
    run = find_run(tmp_path / place)
    assert (run.job_id, run.folder, run.sites_root) == ("abc", kit / "abc", kit.parent)


def test_of_several_jobs_the_newest_or_the_one_asked_for(tmp_path: Path) -> None:
    kit = make_kit(tmp_path)
    for index, name in enumerate(("old", "new")):
        run = write_run(kit / name, job_events(), name)
        for path in (run / "progress.jsonl", run):
            os.utime(path, (1000 + index, 1000 + index))
    assert find_run(tmp_path).job_id == "new"
    assert find_run(tmp_path, "old").job_id == "old"
    with pytest.raises(BundleError, match=r"--job none: no such job; the jobs under .* are: old, new"):
        find_run(tmp_path, "none")


@pytest.mark.parametrize("place", [".", "example_project/prod_00", "store"])
def test_a_finished_job_is_read_from_the_job_store(tmp_path: Path, place: str) -> None:
    kit = make_kit(tmp_path)
    run = write_run(tmp_path / "run", job_events())
    (run / "app_server" / "FL_global_model.pt").touch()
    stored = tmp_path / "store" / "abc"
    archive(run, stored)
    local = kit.parent / "site-1" / "abc" / "local_model.pt"
    local.parent.mkdir(parents=True)
    local.touch()
    report = read_report(tmp_path / place, "abc")
    assert (report.status, report.job_id, len(report.rounds)) == ("completed", "abc", 2)
    assert report.models["final global model"] == f"app_server/FL_global_model.pt in {stored / 'workspace'}"
    assert ("last model of site-1" in report.models) == (place != "store")


def test_a_failed_job_of_the_job_store_names_its_log_there(tmp_path: Path) -> None:
    make_kit(tmp_path)
    run = write_run(tmp_path / "run", job_events()[:3])
    (run / "log.txt").write_text("Traceback (most recent call last):\nTypeError: bad argument\n")
    stored = tmp_path / "store" / "abc"
    archive(run, stored)
    assert read_report(tmp_path, "abc").errors[0] == f"TypeError: bad argument (see {stored / 'workspace'}: log.txt)"


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    make_kit(tmp_path)
    stored = tmp_path / "store" / "abc"
    archive(write_run(tmp_path / "run", job_events()), stored)
    content = bytearray((stored / "workspace").read_bytes())
    content[60:90] = bytes(30)
    (stored / "workspace").write_bytes(content)
    with pytest.raises(BundleError, match=r"workspace: the job's archive is damaged"):
        read_report(tmp_path, "abc")


@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize("place", [".", "example_project/prod_00", "example_project/prod_00/server"])
def test_the_job_store_of_a_provisioned_kit(tmp_path: Path, place: str, elsewhere: bool) -> None:
    """By default in the kit; or where its operator has moved it."""
    kit = make_kit(tmp_path / "system")
    folder = str(tmp_path / "moved") if elsewhere else "."
    manager = {"id": "job_manager", "args": {"uri_root": "jobs-storage", "job_store_id": "job_store"}}
    configure(kit, manager, {"id": "job_store", "path": "kit_storage.KitStorage", "args": {"folder": folder}})
    archive(write_run(tmp_path / "run", job_events()), kit / folder / "jobs-storage" / "abc")
    assert find_run(tmp_path / "system" / place, "abc").archive == kit / folder / "jobs-storage" / "abc" / "workspace"


@pytest.mark.parametrize("below", ["results", "results/abc", "results/abc/workspace"])
def test_a_downloaded_job(tmp_path: Path, below: str) -> None:
    write_run(tmp_path / "results" / "abc" / "workspace", job_events())
    report = read_report(tmp_path / below)
    assert (report.job_id, report.status) == ("abc", "completed")


def test_where_nothing_is_the_error_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no job here; looked for server/simulate_job"):
        find_run(tmp_path)
    with pytest.raises(BundleError, match="no such folder"):
        find_run(tmp_path / "nowhere")


def test_a_server_that_found_its_port_in_use_is_the_cause(tmp_path: Path) -> None:
    """The line is FLARE 2.9.0's own, from a POC started while another program listened on port 8002."""
    server = tmp_path / "example_project" / "prod_00" / "server"
    server.mkdir(parents=True)
    (server / "log.txt").write_text(
        "2026-11-21 05:49:54,287 - conn_manager - ERROR - Connector [CH00001 PASSIVE http://0:8002] failed with "
        "exception OSError: OSError: [Errno 98] error while attempting to bind on address ('0.0.0.0', 8002): "
        "address already in use"
    )
    with pytest.raises(BundleError, match="port 8002 is in use by another program"):
        find_run(tmp_path)
