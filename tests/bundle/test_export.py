# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Exported jobs are plain, complete or not there at all."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.export import export
from custom.errors import BundleError
from tests.bundle.conftest import write_job, write_run


class Poison:
    """A pickle that would make a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_links_become_files_and_caches_stay_behind(job: Path, tmp_path: Path) -> None:
    (job / "app" / "custom" / "__pycache__").mkdir()
    (job / "app" / "custom" / "__pycache__" / "a.pyc").touch()
    out = tmp_path / "deep" / "out"
    assert export(str(job), out).folder == out
    copied = out / "app" / "custom" / "controllers" / "initialize_global_weights.py"
    assert copied.read_text().startswith("# Copyright")
    assert not [path for path in out.rglob("*") if path.is_symlink() or path.name == "__pycache__"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_without_settings_the_json_is_the_same_to_the_byte(job: Path, tmp_path: Path) -> None:
    export(str(job), tmp_path / "out")
    name = Path("app", "config", "config_fed_server.json")
    assert (tmp_path / "out" / name).read_bytes() == (job / name).read_bytes()


def test_settings_change_the_copy_and_not_the_job(job: Path, tmp_path: Path) -> None:
    export(str(job), tmp_path / "out", ["num_rounds=9"])
    for folder, expected in ((tmp_path / "out", 9), (job, 5)):
        config = json.loads((folder / "app" / "config" / "config_fed_server.json").read_text())
        assert config["workflows"][1]["args"]["num_rounds"] == expected


def test_an_empty_folder_may_be_filled_and_another_is_left_alone(job: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(str(job), out)
    before = sorted(out.rglob("*"))
    with pytest.raises(BundleError, match="exists and is not empty"):
        export(str(job), out, ["num_rounds=9"])
    assert sorted(out.rglob("*")) == before


def test_a_folder_inside_the_job_is_refused(job: Path) -> None:
    with pytest.raises(BundleError, match="lies inside the job itself"):
        export(str(job), job / "app" / "out")


def test_links_that_arrived_as_text_are_named_as_the_cause(job: Path, tmp_path: Path) -> None:
    path = job / "app" / "custom" / "controllers" / "initialize_global_weights.py"
    target = os.readlink(path)
    path.unlink()
    path.write_text(target)
    with pytest.raises(BundleError, match="arrived as text files"):
        export(str(job), tmp_path / "out")


def test_a_dangling_link_is_named(job: Path, tmp_path: Path) -> None:
    (job / "app" / "custom" / "gone.py").symlink_to("../nowhere.py")
    with pytest.raises(BundleError, match=r"gone\.py: is a link to a file that does not exist"):
        export(str(job), tmp_path / "out")


def test_a_class_without_its_file_is_found_before_flare_would(job: Path, tmp_path: Path) -> None:
    (job / "app" / "custom" / "controllers" / "initialize_global_weights.py").unlink()
    with pytest.raises(BundleError, match=r"there is no controllers/initialize_global_weights\.py in the job"):
        export(str(job), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize("key", ["initial_model", "pre_train.initial_model"])
def test_an_initial_model_goes_into_the_job(job: Path, tmp_path: Path, key: str) -> None:
    torch.save({"model": {"w": torch.ones(2)}}, tmp_path / "weights.pt")
    out = export(str(job), tmp_path / "out", [f"{key}={tmp_path / 'weights.pt'}"]).folder
    assert (out / "app" / "initial_model.pt").read_bytes() == (tmp_path / "weights.pt").read_bytes()
    config = json.loads((out / "app" / "config" / "config_fed_server.json").read_text())
    assert config["workflows"][0]["args"]["initial_model"] == "initial_model.pt"


def test_the_folder_of_a_job_means_its_final_model(job: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "workspace" / "server" / "simulate_job", [])
    source = f"initial_model={tmp_path / 'workspace'}"
    with pytest.raises(BundleError, match=r"left no app_server/FL_global_model\.pt"):
        export(str(job), tmp_path / "out", [source])
    torch.save({"w": torch.ones(2)}, run / "app_server" / "FL_global_model.pt")
    assert (export(str(job), tmp_path / "out", [source]).folder / "app" / "initial_model.pt").is_file()


@pytest.mark.parametrize("kind", ["poisoned", "cut short", "text", "missing"])
def test_a_file_that_holds_no_plain_weights_is_refused_and_nothing_is_written(
    job: Path, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"w": torch.ones(200)}, file)
    whole = file.read_bytes()
    content = {"poisoned": pickle.dumps(Poison(tmp_path / "struck")), "cut short": whole[:-100], "text": b"hello"}
    if kind == "missing":
        file.unlink()
    else:
        file.write_bytes(content[kind])
    with pytest.raises(BundleError, match=r"weights\.pt"):
        export(str(job), tmp_path / "out", [f"initial_model={file}"])
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "struck").exists()


def test_a_job_that_starts_otherwise_cannot_take_an_initial_model(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job")
    path = job / "app" / "config" / "config_fed_server.json"
    config = json.loads(path.read_text())
    del config["workflows"][0]
    path.write_text(json.dumps(config))
    with pytest.raises(BundleError, match="the job has no InitializeGlobalWeights"):
        export(str(job), tmp_path / "out", ["initial_model=x"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("alpha=-1", "alpha: expected a finite number above 0, got -1"),
        ("partition=random", "partition: expected one of iid, dirichlet, k_classes, none, got 'random'"),
        ("train.local_epochs=0", "local_epochs: expected an integer of at least 1, got 0"),
        ("lr_schedule=linear", "lr_schedule: expected one of constant, cosine, step, got linear"),
        ("weight_method=best", "weight_method: expected one of first, client, random, average, got 'best'"),
        ("min_contributions=0", "min_contributions: expected a whole number of at least 1, got 0"),
        ("max_norm_ratio=0", "max_norm_ratio: expected a number above 0, got 0"),
    ],
)
def test_a_setting_out_of_range_is_refused_before_the_job_leaves(tmp_path, setting, message):
    with pytest.raises(BundleError, match=re.escape(message)):
        export("hello-pt", tmp_path / "out", [setting])
    assert list(tmp_path.iterdir()) == []
