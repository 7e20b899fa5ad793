# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""fl-plus-ft as a user runs it, on the embedded digits with three sites."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from custom.data.image_data import ImageData
from custom.learning.evaluate import evaluate
from custom.learning.weights import Weights, load_weights
from custom.models.lenet import LeNet
from tests.jobs.flare import OUR_SIMULATOR, environment, export, progress, simulate

pytestmark = pytest.mark.e2e
SITES = ["site-1", "site-2", "site-3"]
QUICK = ("dataset=digits", "num_rounds=2", "fine_tune_epochs=3")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sharing off, every workflow."""
    folder = tmp_path_factory.mktemp("ft")
    simulate(export("fl-plus-ft", folder / "job", *QUICK), folder, sites=3, threads=3, data_root=folder)
    return folder / "ws"


def fine_tune(workspace: Path) -> dict[str, Any]:
    return json.loads((workspace / "server" / "simulate_job" / "fine_tune.json").read_text())


def personal(workspace: Path, site: str) -> Path:
    return workspace / site / "personal_models" / "fl-plus-ft" / "personal_model.pt"


def holds(folder: Path, weights: Weights) -> list[str]:
    """Files that contain the bytes of a tensor of `weights`, as FLARE stores arrays: unencrypted and in one piece."""
    needle = weights["fc3.weight"].tobytes()
    return [path.name for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


def test_every_site_is_scored_before_and_after(workspace: Path) -> None:
    result = fine_tune(workspace)
    assert list(result["sites"]) == SITES
    assert result["failed"] == {}
    for row in result["sites"].values():
        assert row["personal"]["val_accuracy"] >= row["global"]["val_accuracy"]
        assert set(row["local_only"]) == set(row["global"]) == set(row["personal"])
    assert result["summary"]["personal"]["mean"] > result["summary"]["global"]["mean"]
    assert result["summary"]["harmed_on_validation"] == 0.0


@pytest.mark.parametrize("site", SITES)
def test_a_personal_model_reproduces_its_row_of_the_table(workspace: Path, site: str) -> None:
    """The three lines of the guide, then the site's own test data."""
    model = LeNet()
    model.load_state_dict(torch.load(personal(workspace, site), weights_only=True)["model"])
    model.eval()
    data = ImageData(dataset="digits", partition="dirichlet", alpha=0.3).site(site, SITES, seed=0)
    scores = evaluate(model, data.batches("test", 512, torch.device("cpu")), "test_")
    row = fine_tune(workspace)["sites"][site]["personal"]
    assert {name: round(value, 4) for name, value in scores.items()} == {
        name: round(row[name], 4) for name in ("test_accuracy", "test_loss")
    }


def test_personal_weights_reach_the_server_only_when_shared(workspace: Path, tmp_path: Path) -> None:
    for site in SITES:
        assert holds(workspace / "server", load_weights(personal(workspace, site))) == []
    settings = (*QUICK, "share_personal_models=true", "submit_model_task_name=submit_model", "local_only=false")
    simulate(export("fl-plus-ft", tmp_path / "job", *settings), tmp_path, sites=3, threads=3, data_root=tmp_path)
    shared = tmp_path / "ws"
    for site in SITES:  # the same search does find them
        assert site in holds(shared / "server", load_weights(personal(shared, site)))
    results = json.loads((shared / "server/simulate_job/cross_site_val/cross_val_results.json").read_text())
    assert all(set(SITES) < set(row) for row in results.values()), results
    own = fine_tune(shared)["sites"]
    for site in SITES:
        assert results[site][site]["test_accuracy"] == own[site]["personal"]["test_accuracy"]


def test_a_process_a_task_gives_the_same_numbers(workspace: Path, tmp_path: Path) -> None:
    """Three sites in two threads: a new process for every task. Nothing may depend on memory, or on chance."""
    job = export("fl-plus-ft", tmp_path / "job", *QUICK, drop_workflows=("cross_site_validate",))
    simulate(job, tmp_path, sites=3, threads=2, data_root=tmp_path)
    assert fine_tune(tmp_path / "ws") == fine_tune(workspace)
    outcomes = [
        [event["sites"] for event in progress(folder) if event["event"] in ("round", "validation")]
        for folder in (tmp_path / "ws", workspace)
    ]
    assert len(outcomes[0]) == 3
    assert outcomes[0] == outcomes[1]  # to the last digit
    assert holds(tmp_path / "ws" / "server", load_weights(personal(tmp_path / "ws", "site-1"))) == []


@pytest.mark.fault
def test_a_failing_and_a_stopped_site_do_not_hold_up_the_others(tmp_path: Path) -> None:
    """site-1 has a personal model of another architecture; site-2 is stopped (SIGSTOP) when fine-tuning begins."""
    settings = ("dataset=digits", "num_rounds=1", "fine_tune_epochs=20", "patience=20", "local_only=false")
    settings += ("fine_tune.timeout_s=40", "fine_tune.min_responses=1")
    job = export("fl-plus-ft", tmp_path / "job", *settings, drop_workflows=("cross_site_validate",))
    workspace = tmp_path / "ws"
    earlier = personal(workspace, "site-1")
    (tmp_path / "empty").mkdir()
    command = [*OUR_SIMULATOR, str(job), "-w", str(workspace), "-n", "3", "-t", "3"]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(
            command, cwd=tmp_path / "empty", env=environment(tmp_path), stdout=log, stderr=subprocess.STDOUT
        )
    stopped = 0
    try:
        wait_for_event(workspace, "workflow_started", "scatter_and_gather", limit_s=600)
        earlier.parent.mkdir(parents=True)  # not before: the simulator empties the sites' folders when it starts
        torch.save({"model": {"fc3.weight": torch.zeros(2, 84)}}, earlier)
        wait_for_event(workspace, "workflow_started", "fine_tune", limit_s=600)
        stopped = client_process(workspace, "site-2")
        os.kill(stopped, signal.SIGSTOP)
        wait_for_event(workspace, "workflow_finished", "fine_tune", limit_s=600)
        os.kill(stopped, signal.SIGCONT)
        assert run.wait(timeout=600) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        if run.poll() is None:
            run.kill()
            if stopped:
                os.kill(stopped, signal.SIGKILL)
    result = fine_tune(workspace)
    assert list(result["sites"]) == ["site-3"]
    assert result["failed"]["site-2"] == "no reply to fine_tune within 40 s"
    assert "another architecture" in result["failed"]["site-1"]
    assert load_weights(earlier)["fc3.weight"].shape == (2, 84)  # what was there is still there
    assert personal(workspace, "site-3").is_file()


def wait_for_event(workspace: Path, event: str, workflow: str, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if (workspace / "server" / "simulate_job" / "progress.jsonl").exists() and any(
            entry["event"] == event and entry.get("workflow") == workflow for entry in progress(workspace)
        ):
            return
        time.sleep(0.05)
    pytest.fail(f"no {event} of {workflow} within {limit_s} s")


def client_process(workspace: Path, site: str) -> int:
    """The process of one site of the simulator that runs in `workspace`."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        worker = "--client" in words and site in words
        if worker and any(str(workspace) in word for word in words):
            return int(folder.name)
    pytest.fail(f"no process of {site}")
