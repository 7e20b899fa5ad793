# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A provisioned deployment of two sites, of which one is late, cut off, restarted, or has a clock that is wrong."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bundle.provision import Kits, provision, renew
from bundle.templates import PROJECT, Wanted
from tests.fault import raising, sites
from tests.fault.ended_early import FINAL, TOLERANCE, difference, wait_for_rounds
from tests.fault.proxy import Proxy
from tests.jobs.deployment import Deployment
from tests.jobs.flare import export, simulate
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.fault]
BOTH = ["site-1", "site-2"]
AWAY = "site-2"
DIGITS = "dataset=digits"
CUT_S = 30
ASK_AGAIN_S = 20  # 60 to 600 in the template: how long a site waits for an answer that was lost with the network
TIMEOUTS = ("GET_TASK", "SUBMIT_TASK_RESULT", "NP_STREAMING_PER_REQUEST")
# Rounds go on without a site that is away: ten seconds after the first has answered.
PATIENCE = ("scatter_and_gather.min_clients=1", "scatter_and_gather.wait_time_after_min_received=10")
CROSS_SITE = ("cross_site_validate",)
SPARSE = '{"path": "custom.aggregators.sparse.SparseAggregator", "args": {"min_contributions": 1}}'
CLOCK_OFF = Path(__file__).with_name("clock_off")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kits, Proxy]]:
    """Kits of the template `secure`, where site-2 reaches the server through a proxy, and asks again sooner."""
    out = tmp_path_factory.mktemp("away") / "kits"
    kits = provision("secure", out, Wanted(port=free_port()))
    with Proxy(free_port(), kits.port) as proxy:
        project = yaml.safe_load((out / PROJECT).read_text())
        site = next(part for part in project["participants"] if part["name"] == AWAY)
        site["connect_to"] = {"host": "localhost", "port": proxy.port}
        (out / PROJECT).write_text(yaml.safe_dump(project))
        kits = renew(out)
        local = kits.folder / AWAY / "local"
        with (local / "site.env").open("a") as file:
            file.writelines(f"NVFLARE_{name}_TIMEOUT={ASK_AGAIN_S}\n" for name in TIMEOUTS)
        resources = json.loads((local / "resources.json").read_text())
        assert resources["client"]["communication_timeout"] == 120
        resources["client"]["communication_timeout"] = ASK_AGAIN_S
        (local / "resources.json").write_text(json.dumps(resources))
        yield kits, proxy


@pytest.fixture(scope="module")
def system(network: tuple[Kits, Proxy], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    kits, proxy = network
    work = tmp_path_factory.mktemp("work")
    with Deployment(kits.folder, kits.server, BOTH, work / "deployment", work) as system:
        assert proxy.passed > 0
        yield system


def check_completed(system: Deployment, job_id: str, tmp_path: Path) -> dict[str, Any]:
    assert sites.wait(system, job_id) == "FINISHED:COMPLETED"
    report = sites.report(system, job_id, tmp_path)
    assert report["status"] == "completed", report["shown"]
    return report


def progress_of(system: Deployment, job_id: str) -> Path:
    return system.folder / system.server / job_id / "progress.jsonl"


def test_a_straggler_counts_in_its_own_round_or_not_at_all(system: Deployment, tmp_path: Path) -> None:
    """site-2 is stopped (SIGSTOP) in round 2 for longer than the round waits, and goes on in round 3."""
    job = export("hello-pt", tmp_path / "job", DIGITS, "num_rounds=4", *PATIENCE, drop_workflows=CROSS_SITE)
    job_id = sites.submit(system, job)
    sites.wait_for_task(system, job_id, AWAY, "train", count=2)
    stopped = sites.freeze(system, AWAY)
    try:
        wait_for_rounds(progress_of(system, job_id), 2)
    finally:
        sites.thaw(stopped)
    check_completed(system, job_id, tmp_path)
    # A late update that closed round 3, or was taken for one of it, would leave no place for site-2's own one.
    assert sites.contributors(system, job_id) == [BOTH, ["site-1"], BOTH, BOTH]
    # Had it been added to anything, the model would not be that of a job in which site-2 raises in round 2.
    final = sites.models(system, job_id, tmp_path / "saved")
    simulate(raising.put_in(job, site=AWAY, learner_round=2), tmp_path, 2, 2, tmp_path)
    expected = tmp_path / "ws" / "server" / "simulate_job" / FINAL
    assert difference(next(path for path in final if path.name == expected.name), expected) <= TOLERANCE


def test_a_site_cut_off_for_half_a_minute_takes_part_again(
    system: Deployment, network: tuple[Kits, Proxy], tmp_path: Path
) -> None:
    settings = (DIGITS, "num_rounds=12", "local_epochs=15", *PATIENCE)  # it trains when the network is cut
    job = export("hello-pt", tmp_path / "job", *settings, drop_workflows=CROSS_SITE)
    job_id = sites.submit(system, job)
    proxy = network[1]
    sites.wait_for_task(system, job_id, AWAY, "train", count=2)
    proxy.cut()
    try:
        time.sleep(CUT_S)
    finally:
        proxy.mend()
    check_completed(system, job_id, tmp_path)
    told = sites.contributors(system, job_id)
    print(f"rounds without {AWAY}: {[number for number, names in enumerate(told, 1) if names != BOTH]}")
    assert len(told) == 12
    assert ["site-1"] in told  # it was away indeed
    assert told[0] == told[-1] == BOTH


def test_a_restarted_site_keeps_its_personal_model_until_the_next_one(system: Deployment, tmp_path: Path) -> None:
    """It is of no use to training, which starts from the federation's model; the site has it for itself."""
    settings = (DIGITS, "num_rounds=1", "local_only=false", "fine_tune_epochs=1")
    job = export("fl-plus-ft", tmp_path / "job", *settings, drop_workflows=CROSS_SITE)
    folder = system.folder / AWAY / "personal_models" / "fl-plus-ft"
    first = sites.submit(system, job)
    check_completed(system, first, tmp_path)
    before = (folder / "personal_model.pt").read_bytes()
    sites.kill_site(system, AWAY)
    sites.start_site(system, AWAY)
    assert (folder / "personal_model.pt").read_bytes() == before
    assert json.loads((folder / "model_card.json").read_text())["job_id"] == first

    second = sites.submit(system, job)
    report = check_completed(system, second, tmp_path)
    assert sites.contributors(system, second) == [BOTH]
    assert sorted(report["personalization"]["sites"]) == BOTH
    assert json.loads((folder / "model_card.json").read_text())["job_id"] == second
    assert torch.load(folder / "personal_model.pt", weights_only=True)["model"]


def test_a_restarted_site_goes_on_with_what_sparse_exchange_had_held_back(system: Deployment, tmp_path: Path) -> None:
    """A job of sparse updates and Adam at the server is aborted, and continued after a restart of site-2."""
    job = sparse_job(tmp_path)
    first = sites.submit(system, job)
    wait_for_rounds(progress_of(system, first), 2)
    sites.abort(system, first)
    sites.wait(system, first)
    sites.kill_site(system, AWAY)
    sites.start_site(system, AWAY)
    second = sites.continuation(sites.resume(system, first, tmp_path)[1])
    check_completed(system, second, tmp_path)
    assert all(names == BOTH for names in sites.contributors(system, second))
    assert list((system.folder / AWAY / second).glob("residual_*.pt"))
    final = sites.models(system, second, tmp_path / "saved")
    simulate(job, tmp_path, 2, 2, tmp_path)
    expected = tmp_path / "ws" / "server" / "simulate_job" / FINAL
    assert difference(next(path for path in final if path.name == expected.name), expected) <= TOLERANCE


def sparse_job(folder: Path) -> Path:
    """Long rounds, so that it can be aborted in the middle."""
    optimizer = '{"path": "custom.aggregators.server_optimizer.ServerAdam", "args": {"server_lr": 0.01}}'
    settings = (DIGITS, "num_rounds=5", "train.local_epochs=8", f"aggregator={SPARSE}")
    job = export("hello-pt", folder / "job", *settings, f"shareable_generator={optimizer}", drop_workflows=CROSS_SITE)
    path = job / "app" / "config" / "config_fed_client.json"
    config = json.loads(path.read_text())
    sparsify = {"path": "custom.filters.sparsify.Sparsify", "args": {"keep_fraction": 0.1}}
    config["task_result_filters"] = [{"tasks": ["train"], "filters": [sparsify]}]
    path.write_text(json.dumps(config))
    return job


def test_a_site_whose_clock_is_an_hour_ahead(system: Deployment, tmp_path: Path) -> None:
    """The last test: the site is left so."""
    sites.kill_site(system, AWAY)
    sites.start_site(system, AWAY, PYTHONPATH=str(CLOCK_OFF))
    started = time.monotonic()
    job_id = sites.submit(system, export("hello-pt", tmp_path / "job", DIGITS, "num_rounds=2"))
    report = check_completed(system, job_id, tmp_path)
    lasted = time.monotonic() - started
    at_server, at_site = (first_time(system.folder / name / job_id) for name in ("site-1", AWAY))
    assert timedelta(minutes=50) < at_site - at_server < timedelta(minutes=70)  # it is in force
    assert sites.contributors(system, job_id) == [BOTH, BOTH]
    times = [event["time"] for event in sites.events(system, job_id)]
    assert times == sorted(times)
    assert times[-1] - times[0] < lasted
    assert all(0 < row["seconds"] < lasted for row in report["rounds"])
    assert re.search(r"time +[\d.]+ (s|min) from the first event", report["shown"]), report["shown"]


def first_time(run_folder: Path) -> datetime:
    """Of the job's log at a site."""
    found = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", (run_folder / "log.txt").read_text())
    assert found
    return datetime.fromisoformat(found[0])
