# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The first real cause in a job's logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.report.causes import BLANK_REMEDY, OTHER_CODE_REMEDY, first_cause, lack_of_resources
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


ENDED = (
    "2026-01-01 10:00:01,000 - SimulatorClientRunner - ERROR - run_client_thread error: RuntimeError: Failed to create "
)
ENDED += "connection to the child process in SimulatorClientRunner, timeout: 60.0\n"
FULL = """\
2026-01-01 10:00:05,000 - Persistor - ERROR - Traceback (most recent call last):
  File "/opt/torch/serialization.py", line 9, in save
OSError: [Errno 28] No space left on device

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/torch/serialization.py", line 10, in save
RuntimeError: [enforce fail at inline_container.cc:671] . unexpected pos 25805696 vs 25805584
"""
SITE = "2026-01-01 10:00:03,000 - ServerRunner - ERROR - site-1 failed at train: ValueError: odd\n"


@pytest.mark.parametrize(
    ("log", "first"),
    [
        (LATER + FULL, "OSError: [Errno 28] No space left on device"),  # though another error came before
        (ENDED + SITE, SITE.strip()),  # what FLARE says of a process that is gone explains nothing
        (ENDED + "simulator_worker.py: error: unrecognized arguments: b/ws\n", "simulator_worker.py: error: unrecog"),
        (ENDED + LATER, ENDED.strip()),  # of two consequences the first
    ],
)
def test_the_cause_is_chosen_by_what_it_says_and_then_by_time(tmp_path: Path, log: str, first: str) -> None:
    run = run_with(tmp_path, server=log)
    assert first_cause(run, []).startswith(first)


def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    assert "Errno 28" in lack_of_resources(run_with(tmp_path, server=FULL), [])
    other = tmp_path / "other"
    other.mkdir()
    assert lack_of_resources(run_with(other, server=LATER), []) == ""


def test_a_blank_in_the_path_of_flares_own_simulator_is_named(tmp_path: Path) -> None:
    blank = tmp_path / "a b"
    blank.mkdir()
    assert first_cause(run_with(blank, server=ENDED), []).endswith(BLANK_REMEDY)
    assert not first_cause(run_with(tmp_path, server=ENDED), []).endswith(BLANK_REMEDY)
    gone = "2026-01-01 10:00:01,000 - S - ERROR - run_client_thread error: PermissionError: [Errno 13] denied: '/a'\n"
    assert first_cause(run_with(tmp_path, site=gone), ["site"]).endswith(BLANK_REMEDY)


@pytest.mark.parametrize("name", ["custom.filters", "controllers.fine_tune"])
def test_another_package_of_the_name_of_a_jobs_is_explained(tmp_path: Path, name: str) -> None:
    run = run_with(
        tmp_path, server=f"Traceback (most recent call last):\nModuleNotFoundError: No module named '{name}'\n"
    )
    assert first_cause(run, []).endswith(OTHER_CODE_REMEDY)
