# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""mnist as a user runs it, on the embedded digits: it learns, and a second job goes on where the first ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from custom.models.lenet import LeNet
from custom.models.small_cnn import SmallCnn
from tests.jobs.flare import ROOT, bundle, environment, export, progress, simulate

pytestmark = pytest.mark.e2e


def first(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(event for event in events if event["event"] == kind)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The job unchanged, two sites, no network and no MNIST. Workspace and output."""
    folder = tmp_path_factory.mktemp("mnist")
    output = simulate(ROOT / "jobs" / "mnist", folder, sites=2, threads=2, data_root=folder / "nothing")
    return folder / "ws", output


def test_it_learns_and_says_that_the_data_are_embedded(run: tuple[Path, str]) -> None:
    workspace, output = run
    events = progress(workspace)
    assert "TRAINING ON THE EMBEDDED MNIST digits" in output
    assert "Traceback" not in output
    assert " - ERROR - " not in output
    assert first(events, "initialized")["dataset"]["input_shape"] == [1, 28, 28]
    assert all(scores["val_accuracy"] > 0.85 for scores in first(events, "validation")["sites"].values())
    path = workspace / "server" / "simulate_job" / "app_server" / "FL_global_model.pt"
    SmallCnn().load_state_dict(torch.load(path, weights_only=True)["model"])


def test_a_second_job_goes_on_where_the_first_ended(run: tuple[Path, str], tmp_path: Path) -> None:
    """What the sites receive first is what the closing validation has scored, to the last digit."""
    job = export(
        "mnist",
        tmp_path / "job",
        f"initial_model={run[0]}",
        "dataset=digits",
        "num_rounds=1",
        drop_workflows=("closing_validation", "cross_site_validate"),
    )
    simulate(job, tmp_path, sites=2, threads=2, data_root=tmp_path)
    events = progress(tmp_path / "ws")
    assert first(events, "initialized")["method"] == "initial_model"
    received = {site: facts["received"] for site, facts in first(events, "round")["sites"].items()}
    assert received == first(progress(run[0]), "validation")["sites"]


def test_three_against_seven_takes_two_settings(tmp_path: Path) -> None:
    model = {"path": "custom.models.linear.LinearClassifier", "args": {"num_classes": 2}}
    job = export("mnist", tmp_path / "job", f"model={json.dumps(model)}", "classes=[3,7]")
    config = json.loads((job / "app" / "config" / "config_fed_client.json").read_text())
    components = {component["id"]: component for component in config["components"]}
    assert components["model"] == {"id": "model", **model}
    assert components["data"]["args"]["classes"] == [3, 7]


def test_the_model_of_another_job_is_refused_before_training(tmp_path: Path) -> None:
    """Whether the file fits, the sites know."""
    other = tmp_path / "lenet.pt"
    torch.save({"model": LeNet().state_dict()}, other)
    settings = ("--set", "dataset=digits", "--set", f"initial_model={other}")
    done = bundle("run", "mnist", "-w", str(tmp_path / "ws"), *settings, cwd=tmp_path, env=environment(tmp_path))
    assert done.returncode == 1, done.stdout[-3000:]
    assert "status    failed" in done.stdout
    assert "[model-mismatch]" in done.stdout
    assert not [event for event in progress(tmp_path / "ws") if event["event"] == "round"]
