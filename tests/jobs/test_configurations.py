# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Every component of every job can be built from its JSON, and every task of its workflows has an executor."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.executor import Executor
from nvflare.apis.filter import Filter
from nvflare.apis.impl.controller import Controller

from tests.jobs.flare import bundle

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted(path.parent.name for path in (ROOT / "jobs").glob("*/meta.json"))


def config(job: str, side: str) -> dict[str, Any]:
    return json.loads((ROOT / "jobs" / job / "app" / "config" / f"config_fed_{side}.json").read_text())


def build(entry: dict[str, Any]) -> Any:
    module, name = entry["path"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**entry.get("args", {}))


def filters(settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [f for k in ("task_data_filters", "task_result_filters") for rule in settings[k] for f in rule["filters"]]


@pytest.mark.parametrize("job", JOBS)
def test_server(job: str) -> None:
    settings = config(job, "server")
    for entry in settings["components"]:
        build(entry)
    assert all(isinstance(build(entry), Controller) for entry in settings["workflows"])
    assert all(isinstance(build(entry), Filter) for entry in filters(settings))


@pytest.mark.parametrize("job", JOBS)
def test_client(job: str) -> None:
    settings = config(job, "client")
    for entry in settings["components"]:
        build(entry)
    assert all(isinstance(build(entry["executor"]), Executor) for entry in settings["executors"])
    assert all(isinstance(build(entry), Filter) for entry in filters(settings))


@pytest.mark.parametrize("job", JOBS)
def test_every_task_has_an_executor(job: str) -> None:
    bound = {task for entry in config(job, "client")["executors"] for task in entry["tasks"]}
    for workflow in config(job, "server")["workflows"]:
        tasks = {value for key, value in workflow["args"].items() if key.endswith("task_name") and value}
        assert tasks <= bound, f"{workflow['id']} sends {tasks - bound}"


@pytest.mark.parametrize("job", JOBS)
def test_ids_that_arguments_name_exist(job: str) -> None:
    for side in ("server", "client"):
        settings = config(job, side)
        ids = {entry["id"] for entry in settings["components"]}
        parts = settings["components"] + settings.get("workflows", [])
        for entry in parts + [e["executor"] for e in settings.get("executors", [])]:
            named = {k: v for k, v in entry["args"].items() if k.endswith("_id")}
            assert set(named.values()) <= ids, f"{job} {entry['path']}: {named}"


def test_jobs_were_found() -> None:
    assert "hello-pt" in JOBS


def test_no_default_is_repeated_in_the_bundle_s_own_checks() -> None:
    """A default lives once, in a constructor: the check's settings stay out of the JSON until they differ."""
    for job in JOBS:
        for entry in filters(config(job, "server")):
            module, name = entry["path"].rsplit(".", 1)
            defaults = inspect.signature(getattr(importlib.import_module(module), name)).parameters
            assert all(defaults[k].default != v for k, v in entry["args"].items()), entry["path"]


def test_the_links_of_every_job_are_complete(tmp_path: Path) -> None:
    done = bundle("link", "--check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
