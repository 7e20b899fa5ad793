# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The FLARE side of the dashboard on a real POC: live numbers, results, causes of failures, rights, a restart."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.admin_kit import read_kit
from bundle.connection import Refused
from custom.errors import BundleError
from dashboard.flare import Flare
from dashboard.poc import PORTS, Poc, in_use
from dashboard.results import NOT_SEEN
from dashboard.system import ABORTED, COMPLETED, Job
from tests.jobs.flare import export

pytestmark = [pytest.mark.e2e, pytest.mark.fault]
LIMIT_S = 240.0


@pytest.fixture(scope="module")
def poc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Poc]:
    """With the class under test: it prepares, starts, and leaves nothing behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLARE_DATA_ROOT", raising=False)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("nothing")))
        patch.setenv("OMP_NUM_THREADS", "1")
        poc = Poc(tmp_path_factory.mktemp("local"), 2)
        poc.prepare()
        poc.start()
        yield poc
        poc.stop()
    assert [port for port in PORTS if in_use(port)] == []
    assert poc._processes() == []


@pytest.fixture(scope="module")
def flare(poc: Poc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flare]:
    flare = Flare(read_kit(poc.kit), tmp_path_factory.mktemp("cache"))
    flare.start()
    wait_for(lambda: len(flare.snapshot().clients) == 2, "both sites")
    yield flare
    flare.stop()
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("flare-")], "end")


def wait_for(condition: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {limit_s} s"
        time.sleep(0.1)


def job_of(flare: Flare, job_id: str) -> Job:
    """As the newest reading has it."""
    wait_for(lambda: flare.snapshot().job(job_id) is not None, "job in the list")
    job = flare.snapshot().job(job_id)
    assert job is not None
    return job


def wait_until_ended(flare: Flare, job_id: str) -> Job:
    wait_for(lambda: job_of(flare, job_id).ended, "end of the job")
    return job_of(flare, job_id)


def rounds(flare: Flare, job_id: str) -> int:
    """Seen live."""
    return sum(event.event == "round" for event in flare.snapshot().events.get(job_id, ()))


def make(folder: Path, name: str, rounds: int = 2) -> Path:
    """mnist on embedded digits, under another name."""
    job = export("mnist", folder / name, "dataset=digits", f"num_rounds={rounds}")
    change_json(job / "meta.json", lambda meta: meta.update(name=name))
    return job


def change_json(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def done(flare: Flare, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job that was followed to its end; of its three rounds, two at least must be seen before that."""
    folder = make(tmp_path_factory.mktemp("jobs"), "good", rounds=3)
    launched = {"launched": {"job": "mnist", "settings": {"train.local_epochs": 1}, "start_from": "", "sites": []}}
    change_json(folder / "meta.json", lambda meta: meta.update(custom_props=launched))
    job_id = flare.submit(folder, "one-click")
    assert flare.submit(folder, "one-click") == job_id
    seen = 0
    end = time.monotonic() + LIMIT_S
    while not job_of(flare, job_id).ended:
        seen = max(seen, rounds(flare, job_id))
        assert time.monotonic() < end
        time.sleep(0.05)
    assert seen >= 2
    return job_id


def test_the_network(flare: Flare) -> None:
    snapshot = flare.snapshot()
    assert (snapshot.problem, [client.name for client in snapshot.clients]) == ("", ["site-1", "site-2"])
    assert snapshot.server_started is not None
    assert time.time() - 3600 < snapshot.server_started < time.time()
    wait_for(lambda: all("Memory" in client.resources for client in flare.snapshot().clients), "resources")
    assert not any(client.is_silent(time.time()) for client in flare.snapshot().clients)


def test_a_job_that_completed(flare: Flare, done: str) -> None:
    job = job_of(flare, done)
    assert (job.name, job.status, job.submitter, job.reason) == ("good", COMPLETED, flare.kit.user, "")
    assert dict(job.settings) == {"train.local_epochs": 1}
    assert job.seconds
    report = flare.report(done)
    assert (report.status, report.errors, len(report.rounds)) == ("completed", [], 3)
    assert report.cross_site
    assert flare.model_file(done).stat().st_size > 10_000
    assert flare.model_file(done, best=True).is_file()
    assert (flare.result_folder(done) / "workspace" / "progress.jsonl").is_file()
    assert "round 3/3" in flare.logs(done)["server"]
    assert "No formatter provided" not in flare.logs(done)["server"]
    assert "Traceback" not in flare.logs(done)["server"]  # also not because somebody asked before it was ready
    with pytest.raises(BundleError, match="the job has ended already"):
        flare.abort(done)


def test_the_same_click_after_a_restart_of_the_dashboard(flare: Flare, done: str, tmp_path: Path) -> None:
    """FLARE knows the token too, even if the export differs by then."""
    another = Flare(flare.kit, tmp_path / "cache")
    assert another.submit(make(tmp_path, "good", rounds=4), "one-click") == done
    another.stop()


def test_classes_that_cannot_be_made(flare: Flare, tmp_path: Path) -> None:
    at_site, at_server = make(tmp_path, "bad-at-site"), make(tmp_path, "bad-at-server")

    def at(job: Path, side: str, name: str) -> None:
        path = job / "app" / "config" / f"config_fed_{side}.json"
        content = json.loads(path.read_text())
        content[name][0].get("executor", content[name][0])["args"]["nonsense"] = 1
        path.write_text(json.dumps(content))

    at(at_site, "client", "executors")
    at(at_server, "server", "workflows")
    ids = [flare.submit(job, job.name) for job in (at_site, at_server)]
    for job_id, where in zip(ids, ("error_log.txt", "log.txt"), strict=True):
        assert wait_until_ended(flare, job_id).status not in (COMPLETED, ABORTED)
        report = flare.report(job_id)
        assert report.status == "failed"
        assert "got an unexpected keyword argument 'nonsense'" in report.errors[0]
        assert where in report.errors[0]
        assert str(flare.cache) not in report.errors[0]


def test_a_job_that_waits_for_sites_and_is_aborted(flare: Flare, tmp_path: Path) -> None:
    folder = make(tmp_path, "too-few")
    change_json(folder / "meta.json", lambda meta: meta.update(min_clients=3))
    job_id = flare.submit(folder, "too-few")
    wait_for(lambda: bool(job_of(flare, job_id).reason), "reason")
    assert job_of(flare, job_id).reason == "it waits: 2 of its sites are connected, and it needs 3"
    with pytest.raises(BundleError, match="the job has not ended yet"):
        flare.result_folder(job_id)
    flare.abort(job_id)
    assert wait_until_ended(flare, job_id).status == ABORTED
    assert flare.report(job_id).errors == ["it was aborted"]


def test_what_flare_refuses_is_a_sentence(flare: Flare, tmp_path: Path) -> None:
    folder = make(tmp_path, "no-app")
    change_json(folder / "meta.json", lambda meta: meta.update(deploy_map={"other": ["@ALL"]}))
    with pytest.raises(BundleError, match="FLARE refuses the job, got App 'other' in deploy_map doesn't exist"):
        flare.submit(folder, "no-app")
    for job_id in ("../../etc", "x; shutdown all", "70e0cc18-e9da-40c4-b949-52c1979c2c39 site-1"):
        with pytest.raises(BundleError, match="is not a job ID"):
            flare.report(job_id)
    with pytest.raises(BundleError, match="there is no such job any more"):
        flare.report("70e0cc18-e9da-40c4-b949-52c1979c2c39")


def test_a_lead_sees_and_launches_but_reads_no_logs(poc: Poc, flare: Flare, done: str, tmp_path: Path) -> None:
    kit = read_kit(poc.kit.parent / "lead@nvidia.com")
    assert kit.role == "lead"
    lead = Flare(kit, tmp_path / "cache")
    lead.start()
    try:
        wait_for(lambda: bool(lead.snapshot().jobs), "jobs")
        for asked in (lead.logs, lead.result_folder):
            with pytest.raises(Refused, match=r"does not allow this to lead@nvidia\.com"):
                asked(done)
        report = lead.report(done)
        assert "no more than was seen while the job ran" in report.warnings[0]
        assert (report.status, report.errors) == ("incomplete", [NOT_SEEN])
        own = lead.submit(make(tmp_path, "of-lead", rounds=40), "of-lead")
        wait_for(lambda: rounds(lead, own) > 0, "live round")
        assert len(lead.report(own).rounds) >= 1
        lead.abort(own)
        assert wait_until_ended(lead, own).status == ABORTED
        assert lead.report(own).errors[0] == "it was aborted"
    finally:
        lead.stop()


def test_a_member_is_refused_before_a_job_is_packed(poc: Poc, flare: Flare, tmp_path: Path) -> None:
    poc._nvflare(LIMIT_S, "poc", "add-user", "member", "member@nvidia.com")
    kit = read_kit(poc.kit.parent / "member@nvidia.com")
    assert kit.role == "member"
    member = Flare(kit, tmp_path / "cache")
    try:
        for _ in range(2):  # who was refused may be asked for again
            with pytest.raises(Refused) as caught:
                member.check_right_to_submit()
            assert caught.value.code == "not-allowed"
    finally:
        member.stop()


def test_who_may_submit_is_asked_for_once_a_session(poc: Poc, flare: Flare) -> None:
    """As the server's audit log has it; what is submitted to ask is not a job."""
    audit = poc.kit.parent / "server" / "audit.log"

    def asked() -> int:
        return audit.read_text().count("may-submit")

    before, jobs = asked(), len(flare.snapshot().jobs)
    for _ in range(3):
        flare.check_right_to_submit()
    assert asked() == before + 1
    session = flare._connection._session
    assert session is not None
    session.close()
    wait_for(lambda: flare._connection._session not in (None, session), "new session")
    for _ in range(2):
        flare.check_right_to_submit()
    assert asked() == before + 2
    assert len(flare.snapshot().jobs) == jobs


def test_a_session_that_the_server_ended_is_made_anew(flare: Flare) -> None:
    session = flare._connection._session
    assert session is not None
    session.close()
    before = flare.snapshot().taken
    wait_for(lambda: flare.snapshot().taken > before + 0.1, "reading")
    assert flare.snapshot().problem == ""
    assert flare._connection._session is not session


def test_a_job_that_was_deleted_meanwhile(flare: Flare, done: str) -> None:
    flare.report(done)
    flare._connection.run(lambda session: session.delete_job(done))
    wait_for(lambda: flare.snapshot().job(done) is None, "end of the job's entry")
    with pytest.raises(BundleError, match="there is no such job any more"):
        flare.report(done)
    assert not (flare.cache / "results" / done).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_server_that_dies_and_comes_back(poc: Poc, flare: Flare, tmp_path: Path) -> None:
    job_id = flare.submit(make(tmp_path, "unlucky", rounds=200), "unlucky")
    wait_for(lambda: rounds(flare, job_id) > 0, "live round")
    os.kill(int((poc.kit.parent / "server" / "pid.fl").read_text()), signal.SIGKILL)
    wait_for(lambda: bool(flare.snapshot().problem), "word of it")
    assert flare.snapshot().problem == "the FLARE server at localhost:8002 does not answer; is it running?"
    with pytest.raises(BundleError, match="does not answer"):
        flare.logs(job_id)
    wait_for(lambda: not flare.snapshot().problem, "connection")
    job = job_of(flare, job_id)
    assert (job.status, job.lost) == ("RUNNING", True)
    report = flare.report(job_id)
    assert report.errors[0] == job.reason
    assert len(report.rounds) >= 1  # as far as it was seen
    with pytest.raises(BundleError, match="there is nothing to abort"):
        flare.abort(job_id)
    wait_for(lambda: len(flare.snapshot().clients) == 2, "both sites")
