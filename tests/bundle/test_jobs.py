# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Finding and reading jobs: every broken folder has a message that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.jobs import find_job, read_job
from custom.errors import BundleError
from tests.bundle.conftest import write_job


def test_a_path_is_read_with_both_configurations(job: Path) -> None:
    found = read_job(str(job))
    assert found.name == "small"
    assert found.min_clients == 2
    assert [flow["id"] for flow in found.workflows] == ["pre_train", "rounds"]


def test_a_job_of_the_bundle_is_found_by_name() -> None:
    assert find_job("hello-pt").parts[-2:] == ("jobs", "hello-pt")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(BundleError, match=r"hello-pd: no such job; did you mean hello-pt\?"):
        find_job("hello-pd")


def test_a_folder_that_is_no_job_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no meta\.json"):
        find_job(str(tmp_path))


@pytest.mark.parametrize("name", ["a/b", "", "-a", "a b", None, 3])
def test_a_name_that_flare_refuses_is_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(BundleError, match=r"meta\.json name: ") as caught:
        read_job(str(write_job(tmp_path / "job", name=name)))
    assert caught.value.code == "job-name"


def test_broken_json_is_named_with_its_line(job: Path) -> None:
    path = job / "app" / "config" / "config_fed_client.json"
    path.write_text('{\n"a": 1,\n}')
    with pytest.raises(BundleError, match=r"config_fed_client\.json: line 3 is not JSON"):
        read_job(str(job))


def test_json_that_is_no_object_or_no_text_is_refused(job: Path) -> None:
    (job / "meta.json").write_text("[]")
    with pytest.raises(BundleError, match="expected a JSON object, got list"):
        read_job(str(job))
    (job / "meta.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="is not text"):
        read_job(str(job))


@pytest.mark.parametrize("value", [0, -1, "2", True])
def test_min_clients_must_be_a_number_of_sites(tmp_path: Path, value: object) -> None:
    with pytest.raises(BundleError, match="min_clients: expected 1 or more"):
        _ = read_job(str(write_job(tmp_path / "job", min_clients=value))).min_clients


@pytest.mark.parametrize(
    ("kind", "value", "named"),
    [
        ("components", None, "components: expected a list of JSON objects, got null"),
        ("components", ["x"], "components: expected a list of JSON objects"),
        ("components", [{"id": "x"}], "components x: expected {"),
        ("components", [{"id": "x", "path": 5}], "components x: expected {"),
        ("executors", [{"tasks": ["train"]}], r"executor of \['train'\]: expected {"),
        ("executors", [{"tasks": ["train"], "executor": None}], r"executor of \['train'\]: expected {"),
        (
            "task_result_filters",
            [{"tasks": ["train"], "filters": "none"}],
            "task_result_filters filters: expected a list",
        ),
        ("task_result_filters", [{"tasks": ["train"], "filters": [{}]}], r"filter of \['train'\]: expected {"),
    ],
)
def test_json_of_another_shape_is_named(job: Path, kind: str, value: object, named: str) -> None:
    path = job / "app" / "config" / "config_fed_client.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {kind: value}))
    with pytest.raises(BundleError, match=f"config_fed_client.json {named}"):
        read_job(str(job))


def test_a_deploy_map_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="deploy_map: expected a JSON object, got null"):
        read_job(str(write_job(tmp_path / "job", deploy_map=None)))
