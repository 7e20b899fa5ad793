# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""hello-pt as a user runs it, on the embedded digits and on CIFAR-10."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from custom.models.lenet import LeNet
from tests.jobs.flare import ROOT, bundle, export, progress, simulate

pytestmark = pytest.mark.e2e
CIFAR = Path(os.environ.get("FLARE_DATA_ROOT", "")) / "cifar-10-batches-py" / "test_batch"
Matrix = dict[str, dict[str, dict[str, float]]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The job unchanged, two sites, no network and no data: the embedded default. Workspace and output."""
    folder = tmp_path_factory.mktemp("hello")
    output = simulate(ROOT / "jobs" / "hello-pt", folder, sites=2, threads=2, data_root=folder / "nothing")
    return folder / "ws", output


def server(workspace: Path) -> Path:
    return workspace / "server" / "simulate_job"


def cross_site(workspace: Path) -> Matrix:
    return json.loads((server(workspace) / "cross_site_val" / "cross_val_results.json").read_text())


def test_it_learns_and_says_that_the_data_are_embedded(run: tuple[Path, str]) -> None:
    workspace, output = run
    rounds = [event for event in progress(workspace) if event["event"] == "round"]
    for site in ("site-1", "site-2"):
        scores = [event["sites"][site]["received"]["val_accuracy"] for event in rounds]
        assert scores[-1] > scores[0] + 0.3, f"{site}: {scores}"
    assert "TRAINING ON THE EMBEDDED" in output
    initialised = next(event for event in progress(workspace) if event["event"] == "initialized")
    assert initialised["dataset"]["embedded"] is True


def test_the_log_has_one_line_a_site_and_round_and_no_error(run: tuple[Path, str]) -> None:
    _, output = run
    for number in range(1, 6):
        lines = [line for line in output.splitlines() if f"round {number}/5  received" in line]
        assert len(lines) == 3, lines  # two sites and the server
    assert "Traceback" not in output
    assert " - ERROR - " not in output


def test_the_cross_site_matrix_is_full(run: tuple[Path, str]) -> None:
    matrix = cross_site(run[0])
    models = {"SRV_FL_global_model.pt", "SRV_best_FL_global_model.pt", "site-1", "site-2"}
    assert set(matrix) == {"site-1", "site-2"}
    for site, row in matrix.items():
        assert set(row) == models, site
        assert all(0.5 < scores["test_accuracy"] <= 1.0 for scores in row.values()), row


def test_the_usual_files_are_there(run: tuple[Path, str]) -> None:
    folder = server(run[0])
    assert len((folder / "metrics" / "round_metrics.jsonl").read_text().splitlines()) == 5
    stats = json.loads((folder / "job_stats_run_summary.json").read_text())
    assert {task["task_name"] for task in stats["timing"]["tasks"]} == {
        "get_weights",
        "train",
        "validate",
        "submit_model",
    }
    for site in ("site-1", "site-2"):
        events = EventAccumulator(str(folder / "tb_events" / site)).Reload()
        assert {"val_accuracy", "val_loss", "train_loss"} <= set(events.Tags()["scalars"])
        assert [point.step for point in events.Scalars("train_loss")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["FL_global_model.pt", "best_FL_global_model.pt"])
def test_a_model_loads_in_three_lines(run: tuple[Path, str], name: str) -> None:
    """The three lines of the README."""
    path = server(run[0]) / "app_server" / name
    model = LeNet()
    model.load_state_dict(torch.load(path, weights_only=True)["model"])
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    local = torch.load(run[0] / "site-1" / "simulate_job" / "local_model.pt", weights_only=True)
    LeNet().load_state_dict(local["model"])
    assert local["round"] == 5


def test_the_best_model_is_the_best_of_all_rounds(run: tuple[Path, str]) -> None:
    events = progress(run[0])
    scores = {}
    for event in events:
        if event["event"] in ("round", "validation"):
            entries = event["sites"]
            weights = event.get("samples") or {site: entry["samples"] for site, entry in entries.items()}
            values = {site: entry.get("received", entry)["val_accuracy"] for site, entry in entries.items()}
            after = event["round"] - (event["event"] == "round")
            scores[after] = sum(weights[s] * values[s] for s in values) / sum(weights.values())
    best = [event for event in events if event["event"] == "best"][-1]
    trained = {number: score for number, score in scores.items() if number > 0}
    assert sorted(scores) == [0, 1, 2, 3, 4, 5]
    assert best["value"] == pytest.approx(max(trained.values()))
    assert trained[best["round"]] == pytest.approx(best["value"])


def test_the_report_tells_the_same(run: tuple[Path, str], tmp_path: Path) -> None:
    out, page = tmp_path / "report.json", tmp_path / "report.html"
    done = bundle("report", str(run[0]), "--json", str(out), "--html", str(page), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    report: dict[str, Any] = json.loads(out.read_text())
    assert report["status"] == "completed"
    assert report["errors"] == []
    assert [entry["round"] for entry in report["rounds"]] == [1, 2, 3, 4, 5]
    validation = next(event for event in progress(run[0]) if event["event"] == "validation")
    for site, scores in validation["sites"].items():
        assert scores.items() <= report["rounds"][-1]["sites"][site].items()
    assert all(entry["upload_bytes"] == 2 * 62_006 * 4 for entry in report["rounds"])
    matrix = cross_site(run[0])
    assert report["cross_site"]["site-1"]["site-2"] == matrix["site-2"]["site-1"]  # model, then site
    assert "EMBEDDED" in done.stdout.upper()
    assert "<svg" in page.read_text()


@pytest.mark.skipif(not CIFAR.is_file(), reason="FLARE_DATA_ROOT holds no cifar-10-batches-py")
def test_cifar10(tmp_path: Path) -> None:
    job = export("hello-pt", tmp_path / "job", "num_rounds=1", "on_missing=error")
    simulate(job, tmp_path, sites=2, threads=2, data_root=os.environ["FLARE_DATA_ROOT"])
    events = progress(tmp_path / "ws")
    initialised = next(event for event in events if event["event"] == "initialized")
    assert initialised["dataset"]["dataset"] == "CIFAR-10"
    assert initialised["samples"]["site-1"] == {"train": 22_500, "validation": 2_500, "test": 5_000}
    closing = next(event for event in events if event["event"] == "validation")
    assert all(scores["val_accuracy"] > 0.2 for scores in closing["sites"].values()), closing
    for row in cross_site(tmp_path / "ws").values():
        assert len(row) == 4
