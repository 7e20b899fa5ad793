# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a site without the right to code allows, and the job without code that it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.allow_list import ADDED_BY_FLARE, ADDED_BY_RESUME, allowed_classes
from bundle.export import export
from bundle.jobs import JOBS
from custom.errors import BundleError


def test_the_allow_list_is_what_the_jobs_name() -> None:
    """Independent of `bundle.arguments`: every "path" in the text of the jobs' JSON, and what FLARE adds."""
    named: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("path"), str):
                named.add(value["path"])
            list(map(walk, value.values()))
        elif isinstance(value, list):
            list(map(walk, value))

    for file in JOBS.glob("*/app/config/config_fed_*.json"):
        walk(json.loads(file.read_text()))
    allowed = allowed_classes()
    assert set(allowed) == named | {*ADDED_BY_FLARE, *ADDED_BY_RESUME}
    assert "custom.executors.trainer.Trainer" in allowed
    assert len(allowed) == len(set(allowed))
    assert not any(path.endswith(".") for path in allowed)  # a prefix would let in more than the jobs name


def test_more_classes_can_be_allowed_and_nonsense_cannot() -> None:
    more = ["custom.compression.criteria.", "mine.Mine"]
    assert set(allowed_classes(more)) - set(allowed_classes()) == set(more)
    for nonsense in ("*", "", "Mine", "a b.C"):
        with pytest.raises(BundleError, match="allow: expected the path of a class"):
            allowed_classes([nonsense])


def test_a_job_without_code(tmp_path: Path) -> None:
    """The rest of it is as with code, settings included."""
    jobs = {code: export("hello-pt", tmp_path / str(code), ["num_rounds=7"], code).folder for code in (True, False)}
    assert (jobs[True] / "app" / "custom").is_dir()
    assert sorted(path.name for path in (jobs[False] / "app").iterdir()) == ["config"]
    files = [path.relative_to(jobs[False]) for path in jobs[False].rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert all((jobs[False] / file).read_bytes() == (jobs[True] / file).read_bytes() for file in files)
