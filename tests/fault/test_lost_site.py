# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A provisioned deployment of three sites, of which one raises, is killed in three phases, and then all are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.provision import provision
from bundle.templates import Wanted
from custom.widgets.lost_sites import BACK
from tests.fault import raising, sites
from tests.fault.ended_early import wait_for_rounds
from tests.jobs.deployment import Deployment
from tests.jobs.flare import export
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.fault]
SITES = ("site-1", "site-2", "site-3")
BAD = "site-2"
OTHERS = ["site-1", "site-3"]
HELLO = ("dataset=digits", "num_rounds=3")
FINE = ("dataset=digits", "num_rounds=2", "local_only=false")
CROSS_SITE = ("cross_site_validate",)
# Minutes in the template. The others would wait 600 s a round for the lost site if they did not learn that it is lost.
LOST_AFTER_S = 25
ENVIRONMENT = "NVFLARE_DEAD_CLIENT_GRACE_PERIOD=2\nNVFLARE_DEAD_CLIENT_CHECK_LEAD_TIME=2\n"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Of the template `secure`, with shorter time-outs, which its operator may set."""
    kits = provision("secure", tmp_path_factory.mktemp("lost") / "kits", Wanted(sites=SITES, port=free_port()))
    local = kits.folder / kits.server / "local"
    resources = json.loads((local / "resources.json").read_text())
    resources["servers"][0]["heart_beat_timeout"] = LOST_AFTER_S
    (local / "resources.json").write_text(json.dumps(resources))
    with (local / "site.env").open("a") as file:
        file.write(ENVIRONMENT)
    work = tmp_path_factory.mktemp("work")
    with Deployment(kits.folder, kits.server, SITES, work / "deployment", work) as system:
        yield system


@pytest.fixture
def back(system: Deployment) -> Iterator[None]:
    """Starts the site again after a test that has killed it."""
    yield
    if system.processes[BAD].poll() is not None:
        sites.start_site(system, BAD)


def check_finished_without_it(system: Deployment, job_id: str, tmp_path: Path) -> dict[str, Any]:
    """By the report, whatever FLARE's status is, and by the models that were saved."""
    print(f"FLARE's status: {sites.wait(system, job_id)}")
    report = sites.report(system, job_id, tmp_path)
    assert report["status"] == f"completed without {BAD}", report["shown"]
    assert f"completed without {BAD}" in report["shown"]
    found = {path.name: path for path in sites.models(system, job_id, tmp_path / "models")}
    assert {"FL_global_model.pt", "best_FL_global_model.pt", "checkpoint.pt"} <= found.keys()
    for path in found.values():
        assert all(value.isfinite().all() for value in torch.load(path, weights_only=True)["model"].values()), path
    return report


def test_client_code_raises(system: Deployment, tmp_path: Path) -> None:
    job = export("hello-pt", tmp_path / "job", *HELLO, drop_workflows=CROSS_SITE)
    raising.put_in(job, site=BAD, learner_round=2, executor_round=3)
    job_id = sites.submit(system, job)
    report = check_finished_without_it(system, job_id, tmp_path)
    assert sites.contributors(system, job_id) == [list(SITES), OTHERS, OTHERS]
    assert any(f"{BAD} at train: RuntimeError: the learner has raised" in error for error in report["errors"])
    assert f"{BAD} at train: EXECUTION_RESULT_ERROR" in report["errors"]


@pytest.mark.usefixtures("back")
def test_a_site_is_killed_in_a_round(system: Deployment, tmp_path: Path) -> None:
    job_id = sites.submit(system, export("hello-pt", tmp_path / "job", *HELLO, "train.local_epochs=5"))
    sites.wait_for_task(system, job_id, BAD, "train", count=2)
    sites.kill_site(system, BAD)
    report = check_finished_without_it(system, job_id, tmp_path)
    assert sites.contributors(system, job_id) == [list(SITES), OTHERS, OTHERS]
    assert f"{BAD}: the server had no sign of life of it" in report["shown"]
    assert sorted(report["cross_site"]["SRV_FL_global_model.pt"]) == OTHERS


def test_a_site_that_was_given_up_takes_part_again_when_it_is_heard_of(system: Deployment, tmp_path: Path) -> None:
    """It is stopped (SIGSTOP) until the round goes on without it."""
    settings = ("dataset=digits", "num_rounds=5", "train.local_epochs=5")
    job = export("hello-pt", tmp_path / "job", *settings, drop_workflows=CROSS_SITE)
    job_id = sites.submit(system, job)
    sites.wait_for_task(system, job_id, BAD, "train", count=2)
    stopped = sites.freeze(system, BAD)
    try:
        wait_for_rounds(system.folder / system.server / job_id / "progress.jsonl", 2)
    finally:
        sites.thaw(stopped)
    print(f"FLARE's status: {sites.wait(system, job_id)}")
    report = sites.report(system, job_id, tmp_path)
    told = sites.contributors(system, job_id)
    print(f"rounds without {BAD}: {[number for number, names in enumerate(told, 1) if names == OTHERS]}")
    assert told[1] == OTHERS
    assert told[-1] == list(SITES)
    assert report["status"] == "completed", report["shown"]
    assert f"{BAD}: {BACK}" in " ".join(report["shown"].split())


@pytest.mark.usefixtures("back")
def test_a_site_is_killed_before_its_first_task(system: Deployment, tmp_path: Path) -> None:
    job_id = sites.submit(system, export("hello-pt", tmp_path / "job", *HELLO))
    # A site that dies before that has no part in the job at all: FLARE starts it with the others.
    started = re.compile(rf"Started run: {job_id} for clients: .*{BAD}")
    sites.until(lambda: bool(started.search(system.log(system.server))), "the job was not started", 60)
    sites.kill_site(system, BAD)
    assert f"assigned task to client {BAD}" not in sites.job_log(system, system.server, job_id)
    check_finished_without_it(system, job_id, tmp_path)
    assert sites.contributors(system, job_id) == [OTHERS] * 3


@pytest.mark.usefixtures("back")
def test_a_site_is_killed_while_it_fine_tunes(system: Deployment, tmp_path: Path) -> None:
    job = export("fl-plus-ft", tmp_path / "job", *FINE, drop_workflows=CROSS_SITE)
    job_id = sites.submit(system, job)
    sites.wait_for_task(system, job_id, BAD, "fine_tune")
    sites.kill_site(system, BAD)
    report = check_finished_without_it(system, job_id, tmp_path)
    assert sites.contributors(system, job_id) == [list(SITES)] * 2
    assert sorted(report["personalization"]["sites"]) == OTHERS
    told = report["personalization"]["failed"][BAD]
    assert re.fullmatch(r"no reply to fine_tune within \d+ s: the server has no sign of life of it", told)
    for site in OTHERS:
        assert (system.folder / site / "personal_models" / "fl-plus-ft" / "personal_model.pt").is_file()


def test_all_sites_are_killed(system: Deployment, tmp_path: Path) -> None:
    """The last test: nobody is left."""
    job_id = sites.submit(system, export("hello-pt", tmp_path / "job", *HELLO, "train.local_epochs=5"))
    sites.wait_for_task(system, job_id, BAD, "train", count=2)
    for site in SITES:
        sites.kill_site(system, site)
    assert sites.wait(system, job_id) != "FINISHED:COMPLETED"
    report = sites.report(system, job_id, tmp_path)
    assert not report["status"].startswith("completed"), report["shown"]
    assert report["errors"], report["shown"]
    assert {path.name for path in sites.models(system, job_id, tmp_path)} >= {"FL_global_model.pt", "checkpoint.pt"}
