# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`initial_model` as the id of a job: in the POC, under a folder, and in FLARE's job store."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from bundle.export import export
from bundle.poc import poc_workspace
from custom.errors import BundleError
from tests.bundle.conftest import write_run
from tests.bundle.test_locate import make_kit

ONE = "2ae43c3e-9f2f-4d6c-9a35-2f2d8e0f5d01"
OTHER = "7c1d7b7a-1c0a-4b57-8d3b-0a4b1d2c3e4f"


@pytest.fixture
def poc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two jobs: one in the server's run folder, the older one in the job store."""
    root = tmp_path / "poc"
    kit = make_kit(root)
    save(write_run(kit / ONE, []) / "app_server" / "FL_global_model.pt", 1.0)
    file = tmp_path / "model.pt"
    save(file, 2.0)
    stored = root / "store" / OTHER
    stored.mkdir(parents=True)
    (stored / "meta").write_text("{}")
    with zipfile.ZipFile(stored / "workspace", "w") as archive:
        archive.write(file, "app_server/FL_global_model.pt")
    monkeypatch.setenv("NVFLARE_POC_WORKSPACE", str(root))
    return root


def save(path: Path, value: float) -> None:
    torch.save({"model": {"w": torch.full((2,), value)}}, path)


def exported(job: Path, out: Path, source: str | Path) -> float:
    """What the job starts from then."""
    folder = export(str(job), out, [f"initial_model={source}"]).folder
    return float(torch.load(folder / "app" / "initial_model.pt", weights_only=True)["model"]["w"][0])


@pytest.mark.parametrize("place", ["", "poc/", "poc/example_project/prod_00/server/"])
@pytest.mark.parametrize(("job_id", "value"), [(ONE, 1.0), (OTHER, 2.0)])
def test_a_job_s_id_is_looked_up(
    job: Path, poc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job_id: str, value: float, place: str
) -> None:
    if place:
        monkeypatch.setenv("NVFLARE_POC_WORKSPACE", str(tmp_path / "nowhere"))
        place = f"{tmp_path}/{place}"
    assert exported(job, tmp_path / "out", f"{place}{job_id}") == value


def test_an_entry_of_the_job_store_is_a_job(job: Path, poc: Path, tmp_path: Path) -> None:
    assert exported(job, tmp_path / "out", poc / "store" / OTHER) == 2.0


@pytest.mark.parametrize("place", ["", "poc/", "gone/"])
def test_an_id_that_nobody_knows_says_where_was_looked(job: Path, poc: Path, tmp_path: Path, place: str) -> None:
    unknown = ONE.replace("2ae", "000")
    source = f"{tmp_path}/{place}{unknown}" if place else unknown
    looked = tmp_path / (place or "poc")
    with pytest.raises(BundleError, match=rf"no such job \(looked under {looked}") as caught:
        exported(job, tmp_path / "out", source)
    assert ("NVFLARE_POC_WORKSPACE" in str(caught.value)) == (not place)
    assert not (tmp_path / "out").exists()


def test_a_job_that_left_no_model(job: Path, poc: Path, tmp_path: Path) -> None:
    (poc / "example_project" / "prod_00" / "server" / ONE / "app_server" / "FL_global_model.pt").unlink()
    with pytest.raises(BundleError, match=rf"job {ONE} left no app_server/FL_global_model\.pt"):
        exported(job, tmp_path / "out", ONE)


def test_what_is_neither_a_file_nor_an_id(job: Path, poc: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="initial_model=mnist: no such file or folder, and no id of a job"):
        exported(job, tmp_path / "out", "mnist")


def test_the_poc_is_where_flare_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is as `nvflare poc prepare` of FLARE 2.9.0 writes it; see nvflare.tool.poc.poc_commands."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NVFLARE_POC_WORKSPACE", raising=False)
    assert poc_workspace()[0] == Path("/tmp/nvflare/poc")
    config = tmp_path / ".nvflare" / "config.conf"
    config.parent.mkdir()
    config.write_text('version = 2\npoc {\n  workspace = "/somewhere/poc"\n}\n')
    assert poc_workspace() == (Path("/somewhere/poc"), str(config))
    monkeypatch.setenv("NVFLARE_POC_WORKSPACE", "~/mine")
    assert poc_workspace() == (tmp_path / "mine", "NVFLARE_POC_WORKSPACE")
    monkeypatch.setenv("NVFLARE_POC_WORKSPACE", " ")
    config.write_text("poc {")
    with pytest.raises(BundleError, match="is not HOCON"):
        poc_workspace()
