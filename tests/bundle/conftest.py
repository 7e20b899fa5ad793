# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A small job, a small run and the command line, as fixtures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bundle import ROOT
from bundle.report import reading
from bundle.report.model import Report
from custom import events as typed_events

Event = dict[str, Any]  # as a line of progress.jsonl
Cli = Callable[..., subprocess.CompletedProcess[str]]

SERVER = {
    "format_version": 2,
    "task_result_filters": [{"tasks": ["train"], "filters": [{"path": "a.privacy.Noise", "args": {"sigma": 0.1}}]}],
    "components": [{"id": "selector", "path": "a.Selector", "args": {"key_metric": "val_accuracy", "timeout": 1}}],
    "workflows": [
        {
            "id": "pre_train",
            "path": "controllers.initialize_global_weights.InitializeGlobalWeights",
            "args": {"task_name": "get_weights"},
        },
        {"id": "rounds", "path": "a.Rounds", "args": {"num_rounds": 5, "min_clients": 2, "timeout": 0.5}},
    ],
}
CLIENT = {
    "format_version": 2,
    "components": [
        {"id": "data", "path": "a.Data", "args": {"alpha": 0.5, "split": {"path": "a.Iid", "args": {"k": 2}}}}
    ],
    "executors": [{"tasks": ["train"], "executor": {"path": "a.Train", "args": {"local_epochs": 1, "augment": True}}}],
}


def write_job(folder: Path, **meta: Any) -> Path:
    """A job folder with the two configurations above, and the classes they name."""
    config = folder / "app" / "config"
    config.mkdir(parents=True)
    content = {"name": "small", "min_clients": 2, "deploy_map": {"app": ["@ALL"]}} | meta
    (folder / "meta.json").write_text(json.dumps(content))
    (config / "config_fed_server.json").write_text(json.dumps(SERVER))
    (config / "config_fed_client.json").write_text(json.dumps(CLIENT))
    package = folder / "app" / "custom" / "a"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("class Selector: ...\n\n\nData = Iid = Rounds = Train = Selector\n")
    (package / "privacy.py").write_text("class Noise: ...\n")
    controllers = folder / "app" / "custom" / "controllers"
    controllers.mkdir(parents=True)
    source = ROOT / "controllers" / "initialize_global_weights.py"
    (controllers / source.name).symlink_to(os.path.relpath(source, controllers))
    return folder


def typed(event: Event, line: int = 1) -> typed_events.Event:
    """As it is read from a file."""
    return typed_events.parse(json.dumps(event).encode(), line)


def build(events: Iterable[Event]) -> Report:
    """The report of `events`, as they are in a file."""
    return reading.build([typed(event, line) for line, event in enumerate(events, 1)])


def round_event(number: int, received: Sequence[float], losses: Sequence[float], **changes: Any) -> Event:
    """A round of two sites with 300 and 100 samples."""
    sites = {
        f"site-{index + 1}": {
            "samples": samples,
            "received": {"val_accuracy": received[index]},
            "train": {"train_loss": losses[index]},
        }
        for index, samples in enumerate((300, 100))
    }
    event = {"event": "round", "time": 10.0 + number, "round": number, "num_rounds": 2, "task": "train", "seconds": 1.5}
    return event | {"upload_bytes": 2000, "download_bytes": 1000, "sites": sites, "failed": {}} | changes


def job_events() -> list[Event]:
    """A job of two rounds that went well."""
    workflows = ["pre_train", "rounds", "closing_validation"]
    dataset = {"dataset": "CIFAR-10", "embedded": False, "num_classes": 10, "input_shape": [3, 32, 32]}
    samples = {"site-1": {"train": 300, "test": 50}, "site-2": {"train": 100, "test": 20}}
    closing = {"site-1": {"val_accuracy": 0.8}, "site-2": {"val_accuracy": 0.6}}
    events: list[Event] = [
        {"event": "job_started", "job": "small", "job_id": "1", "sites": ["site-2", "site-1"], "workflows": workflows},
        {"event": "initialized", "method": "first", "source": "site-1", "dataset": dataset, "samples": samples},
        round_event(1, (0.1, 0.3), (2.0, 1.0)),
        round_event(2, (0.5, 0.7), (1.0, 0.6)),
        {"event": "best", "round": 1, "metric": "val_accuracy", "value": 0.55},
        {"event": "validation", "round": 2, "sites": closing, "samples": {"site-1": 30, "site-2": 10}},
        {"event": "best", "round": 2, "metric": "val_accuracy", "value": 0.75},
        *({"event": "workflow_finished", "workflow": name} for name in workflows),
        {"event": "job_ended"},
    ]
    return [{"time": 10.0 + index} | event for index, event in enumerate(events)]


def write_run(folder: Path, events: Sequence[Event], name: str = "small") -> Path:
    """A server's run folder."""
    (folder / "app_server").mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"name": name}))
    (folder / "progress.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job outside of the bundle."""
    return write_job(tmp_path / "small")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A simulator workspace with a finished job, its models and its cross-site matrix."""
    root = tmp_path / "workspace"
    run = write_run(root / "server" / "simulate_job", job_events())
    (run / "app_server" / "FL_global_model.pt").touch()
    (run / "cross_site_val").mkdir()
    matrix = {
        "site-1": {
            "SRV_FL_global_model.pt": {"test_accuracy": 0.7, "test_loss": float("nan")},
            "site-2": {"test_accuracy": 0.4},
        }
    }
    (run / "cross_site_val" / "cross_val_results.json").write_text(json.dumps(matrix))
    (root / "site-1" / "simulate_job").mkdir(parents=True)
    (root / "site-1" / "simulate_job" / "local_model.pt").touch()
    return root


@pytest.fixture
def cli(tmp_path: Path, warm: None) -> Cli:
    """`python -m bundle ...` as a process, started in an empty folder; named arguments as of `subprocess.run`.

    It packs jobs, and runs them, in processes of the tests' own fork server.
    """
    empty = tmp_path / "elsewhere"
    empty.mkdir()

    def call(*arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bundle", *map(str, arguments)],
            cwd=empty,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
            **more,
            check=False,
        )

    return call
