# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a continuation is made of, and what is said where there can be none; no FLARE process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bundle.connection import Connection
from bundle.continuation import make_continuation
from bundle.ended_early import read_ended_early
from bundle.export import export
from bundle.jobs import Job
from bundle.report.locate import Run
from bundle.report.text import to_text
from bundle.resume import _where_it_goes_on, find_admin_kit, resume_at_server, resume_in_simulator
from custom import checkpoint
from custom.checkpoint import Checkpoint
from custom.errors import BundleError
from custom.learning.weights import load_weights, save_atomically, to_tensors
from custom.progress import append
from tests.bundle.conftest import build
from tests.bundle.kits import Authority, write_kit
from tests.bundle.test_locate import archive

MODEL = {"w": np.array([1.0, 2.0], dtype=np.float32)}
JOB_ID = "0c0eda44-5a4c-44b9-8104-530cc1cf532c"
SELECTION = {"best_val_metric": 0.5, "best_raw_val_metric": 0.5, "negate_key_metric": False}


def ended(folder: Path, job: str, workflow: str, last_round: int, started: tuple[str, ...], **changes: Any) -> Path:
    """The run folder of a job of which the server was killed in the last of the `started` workflows."""
    exported = export(job, folder.parent / f"{folder.name}-job", ("num_rounds=4",) if job != "perfedavg" else ())
    shutil.copytree(exported.folder / "app", folder / "app_server", dirs_exist_ok=True)
    meta = {**exported.meta, "job_id": folder.name, "submitter_name": "someone", "job_folder_name": "x"}
    (folder / "meta.json").write_text(json.dumps(meta))
    for name in ("FL_global_model.pt", "best_FL_global_model.pt"):
        save_atomically({"model": to_tensors(MODEL)}, folder / "app_server" / name)
    (folder / "app_server" / ".FL_global_model.pt.1a.tmp").write_bytes(b"cut")
    (folder / "app_server" / "config" / "__nvfl_sig.json").write_text("{}")
    append(folder, "job_started", job=job, sites=["site-2", "site-1"], workflows=list(started))
    for name in started:
        append(folder, "workflow_started", workflow=name)
    append(folder, "best", round=1, metric="val_accuracy", value=0.75)
    num_rounds = 5 if workflow == "meta_train" else 20 if workflow == "fed_avg" else 4
    rounds = {"fed_avg": 20, "meta_train": last_round} if workflow == "meta_train" else {workflow: last_round}
    state = Checkpoint(
        folder.name, workflow, last_round, num_rounds, rounds, MODEL, {"model_selector": dict(SELECTION)}, None
    )
    checkpoint.save(folder / checkpoint.FILE_NAME, state._replace(**changes))
    return folder


def continuation(folder: Path, tmp_path: Path, workspaces: Path | None = None) -> Job:
    return make_continuation(read_ended_early(Run(folder.name, folder), tmp_path), tmp_path / "out", workspaces)


def server(job: Job) -> dict[str, Any]:
    (path,) = (path for path in job.configs if path.name == "config_fed_server.json")
    written: dict[str, Any] = json.loads((job.folder / path).read_text())
    assert written == job.configs[path]
    return written


def test_rounds_go_on_with_all_their_settings(tmp_path: Path) -> None:
    folder = ended(tmp_path / JOB_ID, "hello-pt", "scatter_and_gather", 2, ("pre_train", "scatter_and_gather"))
    job = continuation(folder, tmp_path)
    config = server(job)
    names = ["pre_train", "scatter_and_gather", "closing_validation", "cross_site_validate"]
    assert [flow["id"] for flow in config["workflows"]] == names
    pre_train, rounds = config["workflows"][:2]
    assert pre_train["args"]["initial_model"] == "continued.pt"
    assert rounds["path"] == "controllers.continued_rounds.ContinuedRounds"
    assert (rounds["args"]["first_round"], rounds["args"]["start_round"], rounds["args"]["num_rounds"]) == (2, 0, 4)
    assert [part["args"] for part in config["components"] if part["id"] == "checkpoint"] == [
        {"continue_from": "continued.pt"}
    ]
    client = json.loads((job.folder / "app" / "config" / "config_fed_client.json").read_text())
    assert client["components"][-1]["args"] == {"job_id": JOB_ID}
    assert job.meta["mandatory_clients"] == ["site-1", "site-2"]
    assert json.loads((job.folder / "meta.json").read_text()).keys() == {
        "name", "resource_spec", "min_clients", "deploy_map", "mandatory_clients"
    }  # fmt: skip
    files = sorted(path.name for path in (job.folder / "app").iterdir())
    assert files == ["FL_global_model.pt", "best_FL_global_model.pt", "config", "continued.pt", "custom"]
    assert not (job.folder / "app" / "config" / "__nvfl_sig.json").exists()


def test_the_best_score_is_that_of_the_best_model_that_lies_there(tmp_path: Path) -> None:
    """It was scored in the round that was not completed: the checkpoint knows of none, or of an earlier one."""
    folder = ended(tmp_path / JOB_ID, "hello-pt", "scatter_and_gather", 2, ("pre_train", "scatter_and_gather"))
    state = checkpoint.load(continuation(folder, tmp_path).folder / "app" / "continued.pt")
    assert state.best == {"round": 1, "metric": "val_accuracy", "value": 0.75}
    assert state.states["model_selector"]["best_val_metric"] == 0.75
    assert state.model["w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("job", "workflow", "last_round", "started", "left"),
    [
        ("fl-plus-ft", "scatter_and_gather", 4, ("pre_train", "scatter_and_gather", "closing_validation", "fine_tune"),
         ["pre_train", "fine_tune", "cross_site_validate"]),
        ("fl-plus-ft", "scatter_and_gather", 4, ("pre_train", "scatter_and_gather"),
         ["pre_train", "closing_validation", "fine_tune", "cross_site_validate"]),
        ("perfedavg", "fed_avg", 20, ("pre_train", "fed_avg", "meta_train"),
         ["pre_train", "meta_train", "personalize"]),
        ("perfedavg", "meta_train", 2, ("pre_train", "fed_avg", "meta_train"),
         ["pre_train", "meta_train", "personalize"]),
        ("sparse-bert", "scatter_and_gather", 3, ("pre_train", "scatter_and_gather"),
         ["pre_train", "scatter_and_gather", "closing_validation", "cross_site_validate"]),
    ],
)  # fmt: skip
def test_workflows_that_ended_are_left_out(
    tmp_path: Path, job: str, workflow: str, last_round: int, started: tuple[str, ...], left: list[str]
) -> None:
    config = server(continuation(ended(tmp_path / JOB_ID, job, workflow, last_round, started), tmp_path))
    assert [flow["id"] for flow in config["workflows"]] == left
    firsts = {flow["id"]: flow["args"]["first_round"] for flow in config["workflows"] if "first_round" in flow["args"]}
    assert firsts == ({workflow: last_round} if workflow in left else {})


def test_a_continuation_that_completed_no_round_is_continued_from_where_it_began(tmp_path: Path) -> None:
    folder = ended(tmp_path / JOB_ID, "hello-pt", "scatter_and_gather", 2, ("pre_train", "scatter_and_gather"))
    (folder / checkpoint.FILE_NAME).rename(folder / "app_server" / "continued.pt")
    assert server(continuation(folder, tmp_path))["workflows"][1]["args"]["first_round"] == 2


def test_what_makes_a_continuation_impossible_is_named(tmp_path: Path) -> None:
    folder = ended(tmp_path / JOB_ID, "hello-pt", "scatter_and_gather", 2, ("pre_train", "scatter_and_gather"))
    file = folder / checkpoint.FILE_NAME
    content = file.read_bytes()

    def refused() -> str:
        with pytest.raises(BundleError) as caught:
            read_ended_early(Run(JOB_ID, folder), tmp_path)
        return str(caught.value)

    file.write_bytes(content[:200])
    assert f"{file}: cannot be loaded safely" in refused()
    file.unlink()
    assert "ended before its first round was completed" in refused()
    append(folder, "round", round=1, num_rounds=4, task="train", seconds=1.0, sites={})
    assert f"{file}: no such checkpoint" in refused()
    file.write_bytes(content)
    save_atomically({"model": to_tensors({"w": np.zeros(3, np.float32)})}, folder / "app_server" / "FL_global_model.pt")
    assert "w: the checkpoint is of another model than FL_global_model.pt" in refused()
    append(folder, "initialized", method="first")
    for number in (2, 3, 4):
        sites: dict[str, Any] = {"site-1": {}, "site-2": {}}
        append(folder, "round", round=number, num_rounds=4, task="train", seconds=1.0, sites=sites)
    for name in ("pre_train", "scatter_and_gather"):
        append(folder, "workflow_finished", workflow=name)
    append(folder, "job_ended")
    append(folder, "validation", round=4, sites={"site-1": {"val_accuracy": 1.0}}, samples={"site-1": 1})
    (folder / "cross_site_val").mkdir()
    (folder / "cross_site_val" / "cross_val_results.json").write_text('{"site-1": {"site-2": {"test_accuracy": 1.0}}}')
    assert f"job {JOB_ID}: is completed: there is nothing to continue" in refused()


def test_a_workflow_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = ended(tmp_path / JOB_ID, "hello-pt", "scatter_and_gather", 2, ("pre_train", "scatter_and_gather"))
    path = folder / "app_server" / "config" / "config_fed_server.json"
    path.write_text(path.read_text().replace("scatter_and_gather.ScatterAndGather", "cyclic.Cyclic"))
    with pytest.raises(BundleError, match="scatter_and_gather: is not of a kind that can be continued"):
        continuation(folder, tmp_path)


def test_a_checkpoint_of_a_workflow_that_the_job_does_not_have_is_refused(tmp_path: Path) -> None:
    """Else what is left of the training would be left out."""
    started = ("pre_train", "scatter_and_gather")
    folder = ended(tmp_path / JOB_ID, "hello-pt", "scatter_and_gather", 2, started)
    file = folder / checkpoint.FILE_NAME
    checkpoint.save(file, checkpoint.load(file)._replace(workflow="a\x1b[2Jb"))
    with pytest.raises(BundleError, match="does not have") as caught:
        continuation(folder, tmp_path)
    assert caught.value.code == "not-resumable"
    run = read_ended_early(Run(JOB_ID, folder), tmp_path)
    assert _where_it_goes_on(run) == f"job {JOB_ID} goes on after round 2/4 of a?[2Jb"


class FakeSession:
    """Answers as FLARE 2.9.0 does after its server was killed and started again."""

    def __init__(self, running: tuple[str, ...] = ()) -> None:
        self.running, self.submitted = running, ""

    def get_system_info(self) -> Any:
        jobs = [SimpleNamespace(job_id=job_id) for job_id in self.running]
        return SimpleNamespace(job_info=jobs, client_info=[SimpleNamespace(name="site-1")])

    def submit_job(self, folder: str) -> str:
        self.submitted = folder
        assert load_weights(Path(folder, "app", "continued.pt"))["w"].tolist() == [1.0, 2.0]
        return "new"

    def get_job_meta(self, job_id: str) -> dict[str, str]:
        return {"status": "RUNNING"}

    def abort_job(self, job_id: str) -> None:
        raise RuntimeError(f"Job {job_id} is not running.")

    def close(self) -> None:
        pass


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    """A server's kit with a job that ended early, and an admin's kit beside it."""
    (tmp_path / "server" / "startup").mkdir(parents=True)
    (tmp_path / "server" / "startup" / "fed_server.json").write_text("{}")
    ended(tmp_path / "server" / JOB_ID, "hello-pt", "scatter_and_gather", 2, ("pre_train", "scatter_and_gather"))
    write_kit(tmp_path / "ann@clinic.org", Authority("hospitals"), port=9)
    return tmp_path / "server"


def talk_to(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "_connect", lambda self: session)


def test_it_is_submitted_and_what_could_not_be_cleared_is_said(kits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, said = FakeSession(), list[str]()
    talk_to(session, monkeypatch)
    assert resume_at_server(JOB_ID, kits, None, said.append) == "new"
    assert Path(session.submitted).name == "hello-pt"
    text = "\n".join(said)
    assert f"job {JOB_ID} goes on after round 2/4 of scatter_and_gather" in text
    assert "not connected now: site-2" in text
    assert f"job {JOB_ID} stays listed as RUNNING" in text


def test_a_packed_job_with_the_name_of_a_folder_of_ours(kits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The continuation holds what a job has, and nothing of what the run has left."""
    run = kits / JOB_ID
    meta = json.loads((run / "meta.json").read_text()) | {"name": "unpacked"}
    (run / "meta.json").write_text(json.dumps(meta))
    archive(run, kits / "jobs-storage" / JOB_ID)
    shutil.rmtree(run)
    session, found = FakeSession(), list[str]()
    monkeypatch.setattr(
        session, "submit_job", lambda folder: found.extend(path.name for path in Path(folder).iterdir()) or "new"
    )
    talk_to(session, monkeypatch)
    assert resume_at_server(JOB_ID, kits, None, lambda said: None) == "new"
    assert sorted(found) == ["app", "meta.json"]


def test_a_job_that_runs_is_left_alone(kits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk_to(FakeSession((JOB_ID,)), monkeypatch)
    with pytest.raises(BundleError, match="is still running"):
        resume_at_server(JOB_ID, kits, None, print)


def test_wrong_places_are_named(kits: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a server's startup kit"):
        resume_at_server(JOB_ID, tmp_path, None)
    with pytest.raises(BundleError, match="no such job; the jobs under"):
        resume_at_server("1" * 36, kits, None)
    with pytest.raises(BundleError, match="is the server's kit; give the folder of an admin's kit"):
        find_admin_kit(kits, kits)
    write_kit(tmp_path / "bob@clinic.org", Authority("hospitals"))
    with pytest.raises(BundleError, match=r"got ann@clinic\.org, bob@clinic\.org; name one"):
        find_admin_kit(kits, None)
    with pytest.raises(BundleError, match="expected one admin's kit, got none"):
        find_admin_kit(tmp_path / "elsewhere" / "server", None)
    with pytest.raises(BundleError, match="not a workspace of the simulator"):
        resume_in_simulator(JOB_ID, kits, None, None)


def test_a_server_that_does_not_answer(kits: Path) -> None:
    with pytest.raises(BundleError, match=r"the FLARE server at 127\.0\.0\.1:9 does not answer; is it running"):
        resume_at_server(JOB_ID, kits, None, print)


def test_the_report_of_a_continuation() -> None:
    continued = {"job_id": JOB_ID, "workflow": "meta_train", "round": 2, "rounds": {"fed_avg": 20, "meta_train": 2}}
    row = {"event": "round", "round": 3, "num_rounds": 5, "task": "meta_train", "sites": {}}
    report = build([{"event": "continued", **continued}, row])
    assert f"continues job {JOB_ID} after round 2 of meta_train" in to_text(report)
    assert report.to_json()["continued"] == {"job_id": JOB_ID, "workflow": "meta_train", "round": 2}
    assert [row.position for row in report.rounds] == [23]
