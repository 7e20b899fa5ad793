# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The disk of a provisioned server is full in the middle of a job: a small file system of its own, filled up."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bundle.provision import Kits, provision
from bundle.templates import Wanted
from tests.fault import sites
from tests.fault.ended_early import FINAL, SETTINGS, TOLERANCE, difference, processes_of_job, wait_for_rounds
from tests.jobs.deployment import Deployment
from tests.jobs.flare import export, simulate
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.fault]
SIZE = "24m"  # of which a kit and what FLARE writes in four rounds take a third


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kits]:
    """With the server's on a disk of its own."""
    kits = provision("secure", tmp_path_factory.mktemp("full") / "out", Wanted(port=free_port()))
    kit = kits.folder / kits.server
    moved = kit.rename(kit.with_name("moved"))
    kit.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(kit)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
    try:
        shutil.copytree(moved, kit, dirs_exist_ok=True)
        yield kits
    finally:
        subprocess.run(["umount", "--lazy", str(kit)], check=True)


@pytest.fixture(scope="module")
def system(kits: Kits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    work = tmp_path_factory.mktemp("processes") / "work"
    with Deployment(kits.folder, kits.server, kits.sites, work, data_root="/nowhere") as system:
        yield system


def fill(folder: Path) -> Path:
    """Until not a byte is left; the file that took it all."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    with (
        pytest.raises(OSError, match="No space left on device"),
        (folder / "one byte more").open("wb", buffering=0) as file,
    ):
        file.write(b"1")
    return path


def test_the_last_whole_files_stay_and_the_job_is_continued(system: Deployment, tmp_path: Path) -> None:
    """As long as nothing can be written FLARE's server does not even answer questions about jobs."""
    job = export("hello-pt", tmp_path / "job", *SETTINGS, "train.local_epochs=8")
    simulate(job, tmp_path, 2, 2, tmp_path)
    expected = tmp_path / "ws" / "server" / "simulate_job" / FINAL
    kit = system.folder / system.server
    job_id = sites.submit(system, job)
    run_dir = kit / job_id
    wait_for_rounds(run_dir / "progress.jsonl", 2)
    filler = fill(kit)
    sites.until(lambda: not processes_of_job(job_id), "the job has not ended", 120)
    saved = sorted(path.name for path in run_dir.rglob("*.pt") if torch.load(path, weights_only=True)["model"])
    assert saved == ["FL_global_model.pt", "best_FL_global_model.pt", "checkpoint.pt"]

    filler.unlink()
    assert sites.wait(system, job_id) == "FINISHED:EXECUTION_EXCEPTION"
    code, told = sites.resume(system, job_id, tmp_path)
    assert code == 0, told
    new = sites.continuation(told)
    assert sites.wait(system, new) == "FINISHED:COMPLETED"
    report = sites.report(system, new, tmp_path)
    assert (report["status"], report["continued"]["job_id"]) == ("completed", job_id)
    assert [row["round"] for row in report["rounds"]] == list(range(report["continued"]["round"] + 1, 5))
    final = next(path for path in sites.models(system, new, tmp_path) if path.name == expected.name)
    assert difference(final, expected) <= TOLERANCE
