# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The first real cause in a job's logs."""

from __future__ import annotations

from pathlib import Path

from bundle.report.causes import first_cause
from bundle.report.locate import Run

LATER = """\
2026-01-01 10:00:09,000 - ServerRunner - ERROR - Traceback (most recent call last):
  File "/opt/nvflare/runner.py", line 7, in run
    raise RuntimeError("x")
RuntimeError: task failed
"""
CHAINED = """\
\x1b[31m2026-01-01 10:00:01,000 - Executor - ERROR - oh\x1b[0m
Traceback (most recent call last):
  File "/ws/site-1/app_site-1/custom/custom/data/image_data.py", line 12, in open
    read()
    ^^^^^^
ValueError: the file is cut short

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/nvflare/x.py", line 1, in y
RuntimeError: EXECUTION_EXCEPTION
"""


def run_with(tmp_path: Path, **logs: str) -> Run:
    for name, text in logs.items():
        folder = tmp_path / name.replace("_", "-")
        folder.mkdir()
        (folder / "log.txt").write_text(text)
    return Run("simulate_job", tmp_path / "server" / "simulate_job", tmp_path)


def test_the_earliest_traceback_is_the_cause_and_its_first_exception(tmp_path: Path) -> None:
    run = run_with(tmp_path, server=LATER, site_1=CHAINED)
    assert first_cause(run, ["site-1"]) == (
        "ValueError: the file is cut short, raised in custom/data/image_data.py line 12 "
        f"(see {tmp_path / 'site-1' / 'log.txt'})"
    )


def test_without_a_traceback_the_first_error_line_is_shown(tmp_path: Path) -> None:
    run = run_with(
        tmp_path,
        server="2026-01-01 10:00:01,000 - A - INFO - fine\n2026-01-01 10:00:02,000 - B - ERROR - port in use\n",
    )
    assert first_cause(run, []).startswith("2026-01-01 10:00:02,000 - B - ERROR - port in use (see ")


def test_without_logs_there_is_no_cause(tmp_path: Path) -> None:
    assert first_cause(Run("simulate_job", tmp_path / "server" / "simulate_job", tmp_path), []) == ""
