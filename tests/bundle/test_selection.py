# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The metric of model selection is checked before a job leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.export import export
from bundle.selection import FLARES
from custom.errors import BundleError

STOCK = f'model_selector={{"path": "{FLARES}", "args": {{"key_metric": "%s"}}}}'


def selector(job: Path) -> dict[str, object]:
    config = json.loads((job / "app" / "config" / "config_fed_server.json").read_text())
    (found,) = [part["args"] for part in config["components"] if part["id"] == "model_selector"]
    return dict(found)


@pytest.mark.parametrize(
    ("job", "metric"),
    [("mnist", "val_f1"), ("mnist", "val_auc"), ("mnist", "test_accuracy"), ("chest-xray", "val_f1")],
)
def test_a_metric_that_the_sites_do_not_report_is_refused(tmp_path: Path, job: str, metric: str) -> None:
    with pytest.raises(BundleError) as caught:
        export(job, tmp_path / "job", [f"key_metric={metric}"])
    assert caught.value.code == "metric-unknown"
    assert "val_accuracy, val_loss" in str(caught.value)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(("job", "metric"), [("mnist", "val_loss"), ("chest-xray", "val_sensitivity")])
def test_a_metric_that_they_report_is_taken_and_shown_in_the_log(tmp_path: Path, job: str, metric: str) -> None:
    exported = export(job, tmp_path / "job", [f"key_metric={metric}"])
    assert selector(exported.folder) == {"key_metric": metric}
    progress = [part for c in exported.configs.values() for part in c["components"] if part["id"] == "progress"]
    assert [part["args"] for part in progress] == [{"key_metric": metric}]


def test_two_classes_bring_their_metrics(tmp_path: Path) -> None:
    export("mnist", tmp_path / "job", ["key_metric=val_auc", "model.num_classes=2"])


def test_of_a_trainer_that_was_changed_nothing_is_known(tmp_path: Path) -> None:
    job = export("mnist", tmp_path / "own").folder
    path = job / "app" / "custom" / "custom" / "learning" / "evaluate.py"
    path.write_text(path.read_text() + "\n# another metric\n")
    export(str(job), tmp_path / "job", ["key_metric=val_f1"])


def test_flares_selector_is_told_that_a_low_loss_is_good(tmp_path: Path) -> None:
    job = export("mnist", tmp_path / "job", [STOCK % "val_loss"]).folder
    assert selector(job) == {"key_metric": "val_loss", "negate_key_metric": True}
    again = export(str(job), tmp_path / "again", ["key_metric=val_loss"]).folder
    assert selector(again) == selector(job)


def test_the_wrong_direction_is_refused(tmp_path: Path) -> None:
    for settings in (["key_metric=val_loss", "negate_key_metric=false"], ["negate_key_metric=true"]):
        with pytest.raises(BundleError) as caught:
            export("mnist", tmp_path / "job", settings)
        assert (caught.value.code, caught.value.key) == ("setting-value", "negate_key_metric")


@pytest.mark.parametrize(("job", "key"), [("perfedavg", "key_metric"), ("mnist", "progress.key_metric")])
def test_a_metric_that_only_the_log_would_show_is_checked_too(tmp_path: Path, job: str, key: str) -> None:
    with pytest.raises(BundleError) as caught:
        export(job, tmp_path / "job", [f"{key}=val_f1"])
    assert caught.value.code == "metric-unknown"
    export(job, tmp_path / "job", [f"{key}=val_accuracy"])
