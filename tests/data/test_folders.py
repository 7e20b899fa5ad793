# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Where data and converted data are looked for, also by a user without a home folder."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.data import prepare
from custom.data import folders
from custom.data.component import or_embedded
from custom.data.folders import (
    DEFAULT_PATH,
    NoHome,
    cache_folder,
    contents,
    data_root,
    given,
    overrides,
    without_tilde,
)
from custom.data.writer_cache import open_converted
from custom.errors import BundleError


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: no HOME, and a user that is not in the list of users."""

    def unknown(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("FLARE_DATA_ROOT", raising=False)
    monkeypatch.delenv("FLARE_CACHE_DIR", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_the_variables_of_a_site_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FLARE_DATA_ROOT", raising=False)
    monkeypatch.delenv("FLARE_CACHE_DIR", raising=False)
    usual = tmp_path / ".cache" / "flare-bundle"
    assert (data_root(DEFAULT_PATH), cache_folder()) == (usual, usual)
    assert (data_root("/a"), cache_folder("/b")) == (Path("/a"), Path("/b"))
    assert (given(DEFAULT_PATH), given("/a")) == ("", "dataset_path /a")
    monkeypatch.setenv("FLARE_DATA_ROOT", "/c")
    monkeypatch.setenv("FLARE_CACHE_DIR", "/d")
    assert (data_root("/a"), cache_folder("/b"), given("/a")) == (Path("/c"), Path("/d"), "FLARE_DATA_ROOT /c")


def test_without_a_home_folder_the_variables_are_named(no_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="FLARE_CACHE_DIR") as error:
        cache_folder()
    assert error.value.code == "not-writable"
    with pytest.raises(NoHome, match="FLARE_DATA_ROOT") as error:
        data_root(DEFAULT_PATH)
    assert error.value.code == "data-missing"
    with pytest.raises(BundleError):
        prepare("mnist", Path("~/data"))
    with pytest.raises(BundleError) as error:
        without_tilde("~/data")
    assert error.value.code == "not-writable"
    assert or_embedded(lambda: data_root(DEFAULT_PATH), lambda: Path("digits"), "embedded", "") == Path("digits")
    monkeypatch.setenv("FLARE_DATA_ROOT", "/c")
    monkeypatch.setenv("FLARE_CACHE_DIR", "/d")
    assert (data_root(DEFAULT_PATH), cache_folder()) == (Path("/c"), Path("/d"))


def test_which_of_two_places_counts_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "overridden", set())
    monkeypatch.setenv("FLARE_DATA_ROOT", "/c")
    assert data_root(DEFAULT_PATH) == Path("/c")
    assert overrides() == []
    assert [data_root("/mine"), data_root("/mine")] == 2 * [Path("/c")]
    assert overrides() == ["the data are in FLARE_DATA_ROOT, which overrides dataset_path=/mine"]


def test_files_that_may_not_be_read_are_not_the_caches_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.touch()

    def convert(_: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with pytest.raises(PermissionError):
        open_converted(tmp_path / "cache", "name", [path], convert)


def test_a_cache_that_cannot_be_written_names_the_variable() -> None:
    with pytest.raises(BundleError, match="FLARE_CACHE_DIR") as error:
        open_converted(Path("/proc/1/x"), "name", [], lambda folder: None)
    assert error.value.code == "not-writable"


def test_what_is_in_a_folder(tmp_path: Path) -> None:
    assert contents(tmp_path / "x") == "no such folder"
    assert contents(tmp_path) == "no folder and 0 files"
    for name in "abcdefg":
        (tmp_path / name).mkdir()
    np.save(tmp_path / "x.npy", np.zeros(1))
    (tmp_path / ".hidden").mkdir()
    assert contents(tmp_path) == "the folders a, b, c, d, e and 2 more and 1 file"
    assert contents(tmp_path / "x.npy") == "a file"
