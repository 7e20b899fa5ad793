# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the files beside progress.jsonl add to a Report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.report.locate import Run
from bundle.report.reading import read_report, read_run
from bundle.report.wording import embedded_warning
from tests.bundle.conftest import job_events, write_run


def test_an_empty_result_of_cross_site_evaluation_is_no_damage(tmp_path: Path) -> None:
    """FLARE writes it where nothing was scored."""
    folder = write_run(tmp_path / "run", job_events())
    (folder / "cross_site_val").mkdir(exist_ok=True)
    path = folder / "cross_site_val" / "cross_val_results.json"
    for text, damaged in (("{}", False), ("[]", True), ("{", True)):
        path.write_text(text)
        warnings = read_run(Run("job", folder)).warnings
        assert any(str(path.name) in warning for warning in warnings) == damaged


@pytest.mark.parametrize("listed", ["FINISHED:ABORTED", "FINISHED:EXECUTION_EXCEPTION"])
def test_a_download_of_a_job_that_a_user_aborted(tmp_path: Path, listed: str) -> None:
    """As `nvflare job download` leaves it: the consequences of the abort are not errors."""
    events = [event for event in job_events() if event["event"] not in ("job_ended", "workflow_finished")]
    folder = write_run(tmp_path / "workspace", [*events, {"event": "job_ended", "aborted": True}])
    (tmp_path / "meta.json").write_text(json.dumps({"name": "job", "status": listed}))
    (folder / "log.txt").write_text("2026-01-01 00:00:00,000 - Adapter - ERROR - StreamError: streaming shutdown\n")
    report = read_report(folder)
    by_a_user = listed == "FINISHED:ABORTED"
    assert (report.status, report.errors == []) == ("aborted" if by_a_user else "incomplete", by_a_user)


def test_a_model_that_was_deleted_is_missed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", job_events())
    (folder / "app_server" / "config").mkdir(parents=True, exist_ok=True)
    persistor = {"id": "persistor", "path": "nvflare.app_opt.pt.file_model_persistor.PTFileModelPersistor"}
    config = folder / "app_server" / "config" / "config_fed_server.json"
    config.write_text(json.dumps({"components": [persistor], "workflows": []}))
    best, final = (folder / "app_server" / name for name in ("best_FL_global_model.pt", "FL_global_model.pt"))
    best.touch()
    missed = "app_server/FL_global_model.pt is not there any more: it was moved or deleted"
    assert missed in read_run(Run("job", folder)).warnings
    final.touch()
    assert missed not in read_run(Run("job", folder)).warnings


def test_sites_with_apps_of_their_own_ask_for_their_data_themselves(tmp_path: Path) -> None:
    events = job_events()
    events[1]["dataset"] |= {"embedded": True}
    run = Run("job", write_run(tmp_path / "server" / "job", events), tmp_path)
    assert "asked" not in embedded_warning(read_run(run))
    config = tmp_path / "site-1" / "job" / "app_site-1" / "config" / "config_fed_client.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"components": [{"id": "data", "path": "a.B", "args": {"dataset": "digits"}}]}))
    assert embedded_warning(read_run(run)).endswith("The job asked for it (dataset).")
