# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""chest-xray as a user runs it, on generated images; and what it says where there are no images at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.flare import bundle, environment, export, progress, simulate

pytestmark = pytest.mark.e2e
METRICS = ("accuracy", "auc", "sensitivity", "specificity")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sites, five rounds, generated images of 32 pixels."""
    folder = tmp_path_factory.mktemp("xray")
    job = export("chest-xray", folder / "job", "data=synthetic", "image_size=32", "num_rounds=5")
    simulate(job, folder, sites=3, threads=3, data_root=folder / "nothing")
    return folder / "ws"


@pytest.fixture(scope="module")
def report(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """As JSON and as text."""
    folder = tmp_path_factory.mktemp("report")
    done = bundle("report", str(workspace), "--json", str(folder / "report.json"), cwd=folder)
    assert done.returncode == 0, done.stdout
    return json.loads((folder / "report.json").read_text()), done.stdout


def test_it_learns_and_says_that_the_images_are_generated(report: tuple[dict[str, Any], str]) -> None:
    result, text = report
    assert result["status"] == "completed"
    assert result["errors"] == []
    assert "EMBEDDED DATA SET: these are results on synthetic chest X-rays" in text.replace("\n", " ")
    assert result["rounds"][-1]["aggregate"]["val_auc"] > 0.75
    assert result["best"]["metric"] == "val_auc"


def test_every_metric_is_in_the_tables(report: tuple[dict[str, Any], str]) -> None:
    for metric in METRICS:
        assert f"val_{metric} of the global model after each round" in report[1]
        assert f"test_{metric} of each model (row) at each site (column)" in report[1]


def test_sensitivity_over_all_sites_is_that_of_all_images(report: tuple[dict[str, Any], str]) -> None:
    row = report[0]["rounds"][-1]
    found = sum(site["val_sensitivity"] * site["val_positives"] for site in row["sites"].values())
    assert row["aggregate"]["val_sensitivity"] == pytest.approx(found / row["aggregate"]["val_positives"])


def test_every_image_is_at_one_site(workspace: Path) -> None:
    """300 patients of whom every third has two images, and 100 more to test on, of whom 34."""
    initialized = next(event for event in progress(workspace) if event["event"] == "initialized")
    sizes = initialized["samples"].values()
    assert sum(site["train"] + site["validation"] for site in sizes) == 300 + 100
    assert sum(site["test"] for site in sizes) == 100 + 34


def test_without_images_it_says_what_to_fetch_and_ends_before_training(tmp_path: Path) -> None:
    data = tmp_path / "nothing"
    arguments = ("run", "chest-xray", "-n", "2", "-w", str(tmp_path / "ws"))
    done = bundle(*arguments, cwd=tmp_path, env=environment(data))
    assert done.returncode != 0
    text = " ".join(done.stdout.split())
    assert "there are no chest X-rays" in text
    assert f"unpack https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia to {data}" in text
    assert "--set dataset=synthetic" in text
    assert not any(event["event"] == "round" for event in progress(tmp_path / "ws"))
