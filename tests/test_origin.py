# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which copy of the code runs: that of the job, wherever a command is typed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundle import ROOT

OF_CUSTOM = ("__init__", "origin", "errors", "printable")
SOURCES = (*(f"custom/{name}.py" for name in OF_CUSTOM), "controllers/__init__.py")
LOOK = """
import sys
from custom.origin import check_origin
from custom.errors import BundleError
import controllers, custom.errors{more}
print(custom.__file__, custom.errors.__file__, controllers.__file__, sep="\\n")
try:
    check_origin({job!r})
except BundleError as error:
    print(error.code, error.key)
"""


def copy_to(folder: Path) -> Path:
    for source in SOURCES:
        (folder / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, folder / source)
    return folder


def look(here: Path, job: Path, more: str = "") -> list[str]:
    """As in a process of FLARE's: the folder where the command was typed comes first, the job's app/custom last."""
    code = f"import sys; sys.path[:0] = [{str(here)!r}]; sys.path.append({str(job)!r})" + LOOK.format(
        more=more, job=str(job)
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


def test_the_copy_of_the_job_wins_over_the_one_that_comes_first(tmp_path: Path) -> None:
    here, job = copy_to(tmp_path / "here"), copy_to(tmp_path / "run" / "app_site-1" / "custom")
    with (job / "custom" / "errors.py").open("a") as file:
        file.write("CHANGED = True\n")
    files = ["custom/__init__.py", "custom/errors.py", "controllers/__init__.py"]
    assert look(here, job) == [str(job / file) for file in files]


def test_a_folder_that_is_not_of_a_job_changes_nothing(tmp_path: Path) -> None:
    here, other = copy_to(tmp_path / "here"), copy_to(tmp_path / "other" / "custom")
    assert look(here, other)[0] == str(here / "custom" / "__init__.py")


@pytest.mark.parametrize(("content", "said"), [("A = 1\n", []), ("A = 2\n", ["code-not-the-jobs mine"])])
def test_another_module_of_the_job_is_compared_by_content(tmp_path: Path, content: str, said: list[str]) -> None:
    here, job = copy_to(tmp_path / "here"), copy_to(tmp_path / "run" / "app_server" / "custom")
    (here / "mine.py").write_text(content)
    (job / "mine.py").write_text("A = 1\n")
    assert look(here, job, ", mine")[3:] == said


def test_a_package_that_hides_the_job_is_compared_with_all_its_files(tmp_path: Path) -> None:
    """One from before it gave way: `__init__` holds nothing."""
    here, job = copy_to(tmp_path / "here"), copy_to(tmp_path / "run" / "app_server" / "custom")
    for folder in (here, job):
        (folder / "custom" / "__init__.py").write_text("")
    assert look(here, job)[3:] == []
    (job / "custom" / "late.py").write_text("")
    assert look(here, job)[3:] == ["code-not-the-jobs custom"]


def test_a_job_of_before_runs_with_its_own_copy(tmp_path: Path) -> None:
    here, job = copy_to(tmp_path / "here"), copy_to(tmp_path / "run" / "app_server" / "custom")
    for package in ("custom", "controllers"):
        (job / package / "__init__.py").write_text("")
    assert look(here, job)[0] == str(job / "custom" / "__init__.py")
    assert look(here, job)[2] == str(job / "controllers" / "__init__.py")
