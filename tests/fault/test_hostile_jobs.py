# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Jobs that were changed after they were signed, that are not signed, or whose zip reaches out of its folder.

Their lead may bring code: what is refused here is refused for its signature alone.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.fault import hostile_submit
from tests.jobs.deployment import LEAD, Deployment, provisioned
from tests.jobs.flare import export, run
from tests.poisoned import Touch

pytestmark = [pytest.mark.e2e, pytest.mark.fault]
WORKFLOWS = ("scatter_and_gather", "closing_validation", "cross_site_validate")
SERVER_APP, SITE_APP = "for_server", "for_sites"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with provisioned("secure", tmp_path_factory.mktemp("hostile")) as system:
        yield system


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """hello-pt that ends after its first workflow, with an app for the server and one for the sites."""
    name = f"job-{uuid.uuid4()}"  # another one for each test: audit lines have it
    job = export("hello-pt", tmp_path / name, "dataset=digits", drop_workflows=WORKFLOWS)
    (job / "app").rename(job / SERVER_APP)
    run(["cp", "-r", str(job / SERVER_APP), str(job / SITE_APP)], tmp_path, {})
    meta = json.loads((job / "meta.json").read_text())
    meta["deploy_map"] = {SERVER_APP: ["server"], SITE_APP: ["site-1", "site-2"]}
    (job / "meta.json").write_text(json.dumps(meta))
    return job


def payload(marker: Path) -> str:
    """What a hostile job adds to a module that the job imports, at the server and at the sites."""
    return f"\nopen({str(marker)!r}, 'a').close()\n"


def submit(system: Deployment, job: Path, **changes: object) -> str:
    arguments = [str(system.folder / LEAD), LEAD, str(job), json.dumps(changes)]
    return run([sys.executable, hostile_submit.__file__, *arguments], job.parent / "empty", system.env).stdout


def module_of(app: str) -> str:
    return f"{app}/custom/custom/__init__.py"


def test_the_code_of_a_signed_job_runs(system: Deployment, job: Path, tmp_path: Path) -> None:
    """So the other tests show what the signature does: the same code, added before signing, leaves its mark."""
    marker = tmp_path / "executed"
    path = job / module_of(SITE_APP)
    path.write_text(path.read_text() + payload(marker))
    done = submit(system, job)
    assert "FINISHED:COMPLETED" in done, done[-3000:]
    assert marker.exists()


@pytest.mark.parametrize("app", [SERVER_APP, SITE_APP])
def test_code_that_was_added_after_signing_is_refused(system: Deployment, job: Path, tmp_path: Path, app: str) -> None:
    """By the server for itself, and by each site for itself: neither relies on the other."""
    marker = tmp_path / "executed"
    before = system.log(system.server)
    done = submit(system, job, append={module_of(app): payload(marker)})
    assert "FINISHED:FAILED_TO_RUN" in done, done[-3000:]
    by = {SERVER_APP: "", SITE_APP: "site-1: "}[app]
    assert f"{by}app {app} does not pass signature verification" in system.log(system.server).removeprefix(before)
    assert not marker.exists()
    assert_audited(system, job, done)


def test_a_file_that_was_added_after_signing_is_refused(system: Deployment, job: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    before = system.log(system.server)
    done = submit(system, job, add={f"{job.name}/{SERVER_APP}/custom/sitecustomize.py": payload(marker)})
    assert "FINISHED:FAILED_TO_RUN" in done, done[-3000:]
    assert "does not pass signature verification" in system.log(system.server).removeprefix(before)
    assert not marker.exists()
    assert_audited(system, job, done)


def test_a_job_without_signatures_is_refused(system: Deployment, job: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    before = system.log(system.server)
    added = {module_of(SERVER_APP): payload(marker), module_of(SITE_APP): payload(marker)}
    done = submit(system, job, drop=[".__nvfl_sig.json", ".__nvfl_submitter.crt"], append=added)
    assert "FINISHED:FAILED_TO_RUN" in done, done[-3000:]
    assert "UNSIGNED_JOB_REJECTED" in system.log(system.server).removeprefix(before)
    assert not marker.exists()
    assert_audited(system, job, done)


@pytest.mark.parametrize("name", ["../escaped", "{job}/for_server/../../../../escaped", "{root}/escaped"])
def test_a_zip_that_reaches_out_of_its_folder_is_refused(
    system: Deployment, job: Path, tmp_path: Path, name: str
) -> None:
    before = system.log(system.server)
    name = name.format(job=job.name, root=tmp_path)
    done = submit(system, job, add={name: "struck"})
    assert "FINISHED:FAILED_TO_RUN" in done, done[-3000:]
    added = system.log(system.server).removeprefix(before)
    assert re.search(r"ValueError: unsafe ('..' component|absolute path) in zip entry", added), added
    assert not (tmp_path / "escaped").exists()
    assert not list(system.folder.rglob("escaped"))
    assert_audited(system, job, done)


def test_a_poisoned_model_in_a_signed_job_is_refused(system: Deployment, tmp_path: Path) -> None:
    """By whoever loads it, the server, before any site trains."""
    model, marker = tmp_path / "model.pt", tmp_path / "executed"
    torch.save({"fc.weight": torch.ones(2)}, model)
    job = export("hello-pt", tmp_path / "job", "dataset=digits", f"initial_model={model}")
    torch.save({"model": Touch(marker)}, job / "app" / "initial_model.pt")
    done = submit(system, job)
    ended = re.search(r"ENDED (\S+) FINISHED:(\S+)", done)
    assert ended, done[-3000:]
    assert ended[2] != "COMPLETED"
    assert "initial_model.pt: cannot be loaded safely" in system.job_file(ended[1], "error_log.txt")
    assert not marker.exists()


def assert_audited(system: Deployment, job: Path, done: str) -> None:
    """FLARE audits who submitted which folder; that the job was refused, and why, is in the server's log."""
    ended = re.search(r"ENDED (\S+)", done)
    assert ended
    assert f"Failed to run the Job ({ended[1]})" in system.log(system.server)
    assert re.search(rf"\[U:{re.escape(LEAD)}\]\[A:job_mgmt\.submit_job {job.name}\]", system.audit(system.server))
