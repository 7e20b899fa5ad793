# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The links in app/custom: complete after a repair, and nothing of a user's is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundle import ROOT
from bundle.link import compare, link_command, repair
from custom.errors import BundleError


def test_every_file_gets_a_link_that_leads_to_it(tmp_path: Path) -> None:
    repair(tmp_path)
    assert (tmp_path / "custom" / "errors.py").resolve() == ROOT / "custom" / "errors.py"
    assert not os.readlink(tmp_path / "custom" / "errors.py").startswith("/")
    assert not (tmp_path / "custom").is_symlink()
    assert (tmp_path / "controllers" / "__init__.py").is_file()
    assert not compare(tmp_path).lines()


def test_stale_links_and_the_folders_they_leave_empty_go(tmp_path: Path) -> None:
    repair(tmp_path)
    gone = tmp_path / "custom" / "gone" / "old.py"
    gone.parent.mkdir()
    gone.symlink_to("../../../old.py")
    wrong = tmp_path / "custom" / "errors.py"
    wrong.unlink()
    wrong.symlink_to("elsewhere.py")
    assert compare(tmp_path).stale == [wrong, gone]
    repair(tmp_path)
    assert not gone.parent.exists()
    assert wrong.resolve() == ROOT / "custom" / "errors.py"


def test_links_that_arrived_as_text_are_found_and_repaired(tmp_path: Path) -> None:
    repair(tmp_path)
    path = tmp_path / "custom" / "errors.py"
    target = os.readlink(path)
    path.unlink()
    path.write_text(target)
    assert compare(tmp_path).text == [path]
    repair(tmp_path)
    assert path.is_symlink()


def test_a_real_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "custom" / "errors.py"
    path.parent.mkdir()
    path.write_text("mine = 1\n")
    with pytest.raises(BundleError, match=r"errors\.py: is a real file where a link belongs"):
        repair(tmp_path)
    assert path.read_text() == "mine = 1\n"
    assert [entry.name for entry in tmp_path.rglob("*")] == ["custom", "errors.py"]


def test_files_of_the_user_beside_ours_stay(tmp_path: Path) -> None:
    mine = tmp_path / "my_model.py"
    mine.write_text("x = 1\n")
    (tmp_path / "linked.py").symlink_to("my_model.py")
    repair(tmp_path)
    assert mine.exists()
    assert (tmp_path / "linked.py").is_symlink()


def test_a_check_changes_nothing_and_returns_1(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(job.rglob("*"))
    assert link_command([str(job)], check=True) == 1
    assert "missing:" in capsys.readouterr().out
    assert sorted(job.rglob("*")) == before
    assert link_command([str(job)], check=False) == 0
    assert link_command([str(job)], check=True) == 0
