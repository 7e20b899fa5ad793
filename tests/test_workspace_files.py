# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The JSON files of a workspace, forged: a report names what it does not understand, `resume` refuses with a code."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bundle import sweep_results
from bundle.continuation import make_continuation
from bundle.ended_early import read_ended_early
from bundle.report.html import to_html
from bundle.report.locate import Run, find_run
from bundle.report.reading import read_report
from bundle.report.text import to_text
from bundle.sweep_results import Result
from custom.errors import BundleError
from tests.bundle.test_resume import JOB_ID, ended
from tests.test_events import WRONG, places, replaced

CONTENTS = [b"", b"5", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b'{"a": 1']
FILES = ["meta.json", "app_server/config/config_fed_server.json", "cross_site_val/cross_val_results.json"]
FILES += ["app_server/config/config_fed_client.json"]
FIRST = ("components", 0)


def run_folder(tmp_path: Path) -> Path:
    folder = ended(tmp_path / JOB_ID, "hello-pt", "scatter_and_gather", 2, ("pre_train", "scatter_and_gather"))
    (folder / FILES[2]).parent.mkdir()
    (folder / FILES[2]).write_text('{"site-1": {"SRV_FL_global_model.pt": {"test_accuracy": 0.5}}}')
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, name: str) -> None:
    folder = run_folder(tmp_path)
    assert read_report(folder).warnings == []
    for content in CONTENTS:
        (folder / name).write_bytes(content)
        report = read_report(folder)
        assert [warning.partition(" ")[0] for warning in report.warnings] == [name]
        to_text(report)
        if name != FILES[2]:
            with pytest.raises(BundleError) as caught:
                read_ended_early(Run(JOB_ID, folder), tmp_path)
            assert caught.value.code == "job-malformed"


@pytest.mark.parametrize("name", FILES)
def test_a_value_of_another_type_gives_no_traceback(tmp_path: Path, name: str) -> None:
    """20 places of each file; a job that goes on all the same is FLARE's to judge."""
    folder, rng = run_folder(tmp_path), random.Random(1)
    good = json.loads((folder / name).read_text())
    found = list(places(good))
    for number, path in enumerate(rng.sample(found, min(20, len(found)))):
        (folder / name).write_text(json.dumps(replaced(good, path, rng.choice(WRONG))))
        report = read_report(folder)
        to_text(report)
        if number == 0:
            to_html(report)
        try:
            make_continuation(read_ended_early(Run(JOB_ID, folder), tmp_path), tmp_path / f"out{number}")
        except BundleError as error:
            assert error.code in ("job-malformed", "job-name", "not-resumable"), path  # noqa: PT017


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("place", [(), ("components",), FIRST, (*FIRST, "id"), (*FIRST, "args")])
def test_a_kit_s_resources(tmp_path: Path, wrong: Any, place: tuple[Any, ...]) -> None:
    """Of which only the place of the job store is read."""
    kit = tmp_path / "server"
    (kit / "startup").mkdir(parents=True)
    (kit / "local").mkdir()
    (kit / "startup" / "fed_server.json").write_text("{}")
    resources: Any = {"components": [{"id": "job_manager", "args": {"uri_root": "jobs"}}]}
    resources = replaced(resources, place, wrong) if place else wrong
    (kit / "local" / "resources.json").write_text(json.dumps(resources))
    with pytest.raises(BundleError) as caught:
        find_run(tmp_path)
    assert caught.value.code == "run-not-found"


def test_the_record_of_a_point_of_a_sweep(tmp_path: Path) -> None:
    """One that cannot be read is run again."""
    result = Result({"lr": 0.1}, "ab", "completed", metrics={"val_accuracy": {"best": 0.5, "final": 0.5}})
    result.save(tmp_path)
    assert sweep_results.load(tmp_path) == result
    path = tmp_path / sweep_results.POINT_FILE
    good = json.loads(path.read_text())
    for place in (("metrics",), ("metrics", "val_accuracy"), ("metrics", "val_accuracy", "best"), ("upload_bytes",)):
        for wrong in ([1], {"a": [1]}, "x", None):
            path.write_text(json.dumps(replaced(good, place, wrong)))
            assert sweep_results.load(tmp_path) is None
    for content in CONTENTS:
        path.write_bytes(content)
        assert sweep_results.load(tmp_path) is None
