# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Names that come from a job, a site, a workspace, a kit or a browser, and become a path: each place where they do."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.job_def import JobMetaKey

from bundle.admin_kit import read_kit
from bundle.ended_early import read_ended_early
from bundle.jobs import read_job
from bundle.report.locate import Run, unpack
from bundle.report.reading import read_report
from custom import checkpoint
from custom.errors import BundleError
from custom.executors.fine_tuner import FineTuner
from custom.names import LONGEST, check_name, is_name
from custom.widgets.carry_over import CarryOver
from dashboard import flare, web
from tests.bundle.conftest import job_events, write_job, write_run
from tests.bundle.kits import Authority, write_kit
from tests.bundle.test_resume import JOB_ID, ended
from tests.support import Engine

NOT_NAMES: list[Any] = ["../x", "..", ".", "", "/x", "a/b", "a\\b", "a\0b", "a\nb", "\x1b[2J", " a", "é", "-n", ".git"]
NOT_NAMES += ["x" * 300, "meta.json", None, 5, ["a"]]
TEXTS = [name for name in NOT_NAMES if isinstance(name, str)]
KEYS = [name for name in TEXTS if "\0" not in name]


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(BundleError) as caught:
        action()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    return caught.value.code


@pytest.mark.parametrize("name", ["a", "hello-pt", "site-1.hospital_a.org", "7", "simulate_job", "x" * LONGEST])
def test_usual_names_are_taken(name: str) -> None:
    assert check_name(name, "here") == name


@pytest.mark.parametrize("name", NOT_NAMES)
def test_others_are_not(name: Any) -> None:
    assert not is_name(name)
    assert refused(lambda: check_name(name, "here")) == "job-name"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", NOT_NAMES)
def test_the_name_of_a_job_and_of_its_app(tmp_path: Path, name: Any) -> None:
    job = write_job(tmp_path / "job")
    for changes in [{"name": name}, *([{"name": "ok", "deploy_map": {name: ["@ALL"]}}] if name in TEXTS else [])]:
        edit(job / "meta.json", **changes)
        assert refused(lambda: read_job(str(job))) == "job-name"


def test_the_names_of_a_job_to_be_continued(tmp_path: Path) -> None:
    folder = ended(tmp_path / JOB_ID, "hello-pt", "scatter_and_gather", 2, ("pre_train", "scatter_and_gather"))
    meta, config = folder / "meta.json", folder / "app_server" / "config" / "config_fed_server.json"
    before = sorted(tmp_path.rglob("*"))

    def read() -> object:
        return read_ended_early(Run(JOB_ID, folder), tmp_path)

    for file, key, names in ((meta, "name", NOT_NAMES), (meta, "deploy_map", TEXTS), (config, "model", NOT_NAMES)):
        good = file.read_text()
        for name in names:
            content = json.loads(good)
            if key == "model":
                persistor = next(part for part in content["components"] if part["id"] == "persistor")
                persistor["args"]["global_model_file_name"] = name
            else:
                content[key] = {name: ["@ALL"]} if key == "deploy_map" else name
            file.write_text(json.dumps(content))
            assert refused(read) == "job-name", (key, name)
        file.write_text(good)
    read()
    path = folder / checkpoint.FILE_NAME
    for name in NOT_NAMES:
        torch.save(torch.load(path, weights_only=True) | {"job_id": name}, path)
        assert refused(read) == "checkpoint-unusable"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [name for name in TEXTS if name])
def test_the_names_that_a_site_makes_folders_of(tmp_path: Path, name: str) -> None:
    engine = Engine(tmp_path, {}, ["site-1"], identity="site-1")
    with engine.new_context() as fl_ctx:
        fl_ctx.set_prop(FLContextKey.JOB_META, {JobMetaKey.JOB_NAME: name}, private=True, sticky=True)
        assert refused(lambda: FineTuner()._folder(fl_ctx)) == "job-name"
    for workspaces in ("", str(tmp_path)):
        assert refused(lambda: CarryOver(name, workspaces)._earlier(tmp_path / "id", "site-1")) == "job-name"  # noqa: B023
    if name != "a/b":  # a folder in a folder
        assert refused(FineTuner(personal_dir=name).check) == "setting-value"


@pytest.mark.parametrize("name", KEYS)
def test_a_report_looks_for_nothing_outside_of_its_workspace(tmp_path: Path, name: str) -> None:
    """Sites and job of a forged or foreign workspace; what lies beside it is no model of it."""
    root = tmp_path / "in" / "workspace"
    tuned = {"event": "fine_tuned", "sites": {name: {}}, "failed": {}, "summary": {}}
    started = job_events()[0] | {"sites": [name, "a\0b"], "job": name}
    write_run(root / "server" / "simulate_job", [started, *job_events()[1:-1], tuned], name=name)
    for folder in (tmp_path / "in" / "x", root, tmp_path / "in"):
        for model in ("simulate_job/local_model.pt", "personal_models/x/personal_model.pt"):
            (folder / model).parent.mkdir(parents=True, exist_ok=True)
            (folder / model).touch()
    assert not read_report(root).models


@pytest.mark.parametrize("name", NOT_NAMES)
def test_the_files_that_a_kit_names(tmp_path: Path, name: Any) -> None:
    kit = write_kit(tmp_path / "kit", Authority("a"))
    read_kit(kit)
    (file,) = (kit / "startup").glob("*.json")
    content = json.loads(file.read_text())
    content["admin"]["client_key"] = name
    file.write_text(json.dumps(content))
    assert refused(lambda: read_kit(kit)) == "kit-unusable"


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_browser_sends(tmp_path: Path, name: str) -> None:
    pages = web.Web(SimpleNamespace(cache=tmp_path))  # type: ignore[arg-type]
    path = pages.new_upload(name)
    path.write_bytes(b"x")
    assert path.parent.parent == tmp_path / "uploads"
    assert len(path.name) < 200
    assert refused(lambda: flare._check(name)) == "job-not-found"


@pytest.mark.parametrize("name", [name for name in KEYS if name not in ("", ".", "meta.json")])
def test_the_members_of_an_archive(tmp_path: Path, name: str) -> None:
    """They stay below the folder that they are unpacked into, or are refused; a file with them is never outside."""
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    archive = tmp_path / "workspace.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr(name, "x")
        content.writestr(f"{name}/more.txt", "x")
    with suppress(BundleError, OSError):  # of two files of one name, or of 300 letters; the command line says which
        unpack(archive, target)
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and target not in path.parents]
    assert outside == [archive]
    assert not Path("/x").exists()
