# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Exported jobs are plain, complete or not there at all."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundle import ROOT
from bundle.export import export
from custom.compression import topk
from custom.errors import BundleError
from tests.bundle.conftest import write_job, write_run
from tests.poisoned import Touch


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
    content = {"poisoned": pickle.dumps(Touch(tmp_path / "struck")), "cut short": whole[:-100], "text": b"hello"}
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
        ("max_norm_ratio=0", "max_norm_ratio: expected a number of at least 1, or null for no limit, got 0"),
    ],
)
def test_a_setting_out_of_range_is_refused_before_the_job_leaves(tmp_path, setting, message):
    with pytest.raises(BundleError, match=re.escape(message)):
        export("hello-pt", tmp_path / "out", [setting])
    assert list(tmp_path.iterdir()) == []


def with_part(job: Path, path: str, **args: Any) -> Path:
    """Nests the class in the client's data component."""
    file = job / "app" / "config" / "config_fed_client.json"
    config = json.loads(file.read_text())
    config["components"][0]["args"]["split"] = {"path": path, "args": args}
    file.write_text(json.dumps(config))
    return job


def link(job: Path, *names: str) -> None:
    """Files of this bundle in the job's app/custom."""
    for name in names:
        target = job / "app" / "custom" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(ROOT / name)


CRITERIA = "custom.compression.criteria"


@pytest.mark.parametrize(
    ("path", "args", "message"),
    [
        (
            f"{CRITERIA}.Nope",
            {},
            f"split {CRITERIA}.Nope: there is no Nope in app/custom/custom/compression/criteria.py",
        ),
        (f"{CRITERIA}.Nope", {}, "; it has Criterion, FinalMagnitude, MagnitudeChange, MagnitudeIncrease, Random"),
        (f"{CRITERIA}.Random", {"largest": False}, "unexpected keyword argument 'largest'; it takes no arguments"),
        (f"{CRITERIA}.FinalMagnitude", {"least": False}, "unexpected keyword argument 'least'; it takes largest"),
        (f"{CRITERIA}.FinalMagnitude", {"largest": "no"}, "largest: expected true or false, got 'no'"),
        ("custom.nope.Nope", {}, "there is no custom/nope.py in the job's app/custom"),
        ("my.Crit", {}, "split my.Crit: there is no my.py in the job's app/custom, and no my is installed"),
        ("email.nope.Crit", {}, "and no email.nope is installed"),
        ("email.message.nope.Crit", {}, "and no email.message.nope is installed"),
        ("here.Crit", {}, "and no here is installed"),
        ("benchmarks.compression.X", {}, "and no benchmarks.compression is installed"),
        ("a.Nope", {}, "split a.Nope: there is no Nope in app/custom/a/__init__.py; it has Selector"),
        ("broken.Crit", {}, "app/custom/broken.py: line 1 is not valid Python"),
        ("Crit", {}, "split Crit: is not a path of a class; write it as module.Class"),
        ("../up.Crit", {}, "is not a path of a class"),
    ],
)
def test_a_class_that_flare_could_not_build_is_found_before_it_starts(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, args: dict[str, Any], message: str
) -> None:
    link(job, "custom/compression/criteria.py")
    (job / "app" / "custom" / "broken.py").write_text("class Crit\n")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "here.py").write_text("class Crit: ...\n")
    monkeypatch.chdir(tmp_path / "here")  # where `python -m` looks, and FLARE does not
    monkeypatch.syspath_prepend(tmp_path / "here")
    with pytest.raises(BundleError, match=re.escape(message)):
        export(str(with_part(job, path, **args)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("path", "args"),
    [
        (f"{CRITERIA}.FinalMagnitude", {"largest": False}),
        ("email.message.Message", {}),
        ("collections.OrderedDict", {}),
        ("builtins.dict", {}),
        ("nvflare.not.looked.At", {}),
        ("mine.Mine", {"power": 2}),
        ("mine.Alias", {}),
        ("stars.Anything", {}),
    ],
)
def test_a_class_that_is_there_is_not_run(job: Path, tmp_path: Path, path: str, args: dict[str, Any]) -> None:
    link(job, "custom/compression/criteria.py")
    custom = job / "app" / "custom"
    (custom / "mine.py").write_text("class Mine: ...\n\n\nAlias = Mine\nraise RuntimeError\n")
    (custom / "stars.py").write_text("from mine import *\n")
    export(str(with_part(job, path, **args)), tmp_path / "out")


def test_a_file_of_ours_that_the_job_has_changed_is_not_judged_by_ours(job: Path, tmp_path: Path) -> None:
    criteria = job / "app" / "custom" / "custom" / "compression" / "criteria.py"
    criteria.parent.mkdir(parents=True)
    criteria.write_text((ROOT / "custom" / "compression" / "criteria.py").read_text() + "class Mine: ...\n")
    export(str(with_part(job, f"{CRITERIA}.Mine", power=2)), tmp_path / "out")
    with pytest.raises(BundleError, match=r"there is no Nope in app/custom/custom/compression/criteria\.py"):
        export(str(with_part(job, f"{CRITERIA}.Nope")), tmp_path / "again")


MINE = """\
import numpy as np


class Mine:
    def __init__(self, power):
        self.power = power

    def __call__(self, start, update, rng):
        return np.abs(update) ** self.power
"""


def test_a_criterion_of_your_own_as_the_readme_of_sparse_bert_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = 'criterion={"path": "mine.Mine", "args": {"power": 2}}'
    with pytest.raises(BundleError, match=r"app/custom of an exported job: app/custom/mine\.py has mine\.Mine"):
        export("sparse-bert", tmp_path / "out", [setting])
    mine = export("sparse-bert", tmp_path / "mine").folder
    (mine / "app" / "custom" / "mine.py").write_text(MINE)
    out = export(str(mine), tmp_path / "out", [setting])
    sparsify = out.configs[Path("app/config/config_fed_client.json")]["task_result_filters"][0]["filters"][0]
    assert sparsify["args"]["criterion"] == {"path": "mine.Mine", "args": {"power": 2}}
    monkeypatch.syspath_prepend(out.folder / "app" / "custom")
    criterion = importlib.import_module("mine").Mine(power=2)
    update = {"w": np.array([0.1, -3.0, 2.0, 0.0], np.float32)}
    indices = topk.select(update, {"w": np.zeros(4, np.float32)}, criterion, 0.5, scope="model", seed=0)
    assert indices["w"].tolist() == [1, 2]


def test_the_server_optimizer_is_swapped_as_the_readme_of_sparse_bert_says(tmp_path: Path) -> None:
    readme = (ROOT / "jobs" / "sparse-bert" / "README.md").read_text()
    setting = re.search(r"--set '(server_optimizer=[^']*)'", readme)
    assert setting is not None
    out = export("sparse-bert", tmp_path / "out", [setting[1]])
    parts = {part["id"]: part for part in out.configs[Path("app/config/config_fed_server.json")]["components"]}
    assert parts["server_optimizer"] == {
        "id": "server_optimizer",
        "path": "custom.aggregators.server_optimizer.ServerAdam",
        "args": {"server_lr": 0.001},
    }
    with pytest.raises(BundleError, match="server_lr: expected"):
        export("sparse-bert", tmp_path / "bad", [setting[1].replace("0.001", "-1")])
