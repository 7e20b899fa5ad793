# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A site of three puts control codes and forged lines into names, through FLARE: nobody's log or terminal gets them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.fault.naming import SITE
from tests.hostile import FORGED
from tests.jobs.flare import PROGRAM, bundle, environment, export, progress, run

pytestmark = [pytest.mark.e2e, pytest.mark.fault]


@pytest.mark.parametrize(
    ("what", "code", "finishes"), [("metric", "update-metrics", True), ("dataset", "reply-malformed", False)]
)
def test_control_codes_reach_neither_log_nor_report(tmp_path: Path, what: str, code: str, finishes: bool) -> None:
    job = export("hello-pt", tmp_path / "job", "dataset=digits", "num_rounds=1")
    path = job / "app" / "config" / "config_fed_client.json"
    config = json.loads(path.read_text())
    config["components"] = [part for part in config["components"] if part["id"] not in ("writer", "send_events")]
    naming = {"path": "naming.Naming", "args": {"what": what}}
    config["task_result_filters"] = [{"tasks": ["validate", "get_weights"], "filters": [naming]}]
    path.write_text(json.dumps(config))
    shutil.copy(Path(__file__).with_name("naming.py"), job / "app" / "custom")
    command = [sys.executable, str(PROGRAM), str(job), "-w", str(tmp_path / "ws"), "-n", "3", "-t", "3"]
    done = run(command, tmp_path / "empty", environment(tmp_path))
    told = bundle("report", str(tmp_path / "ws"), "--html", str(tmp_path / "r.html"), cwd=tmp_path).stdout
    logs = [log.read_text(errors="replace") for log in (tmp_path / "ws" / "server").rglob("log.txt")]
    for text in (done.stdout, told, (tmp_path / "r.html").read_text(), *logs):
        assert "\x1b]0;" not in text
        assert f"\n{FORGED}" not in text
    assert "\x1b" not in told
    assert f"[{code}]" in told
    assert SITE in told
    assert any(event["event"] == "job_ended" for event in progress(tmp_path / "ws"))
    assert ("status    completed" in told) is finishes
