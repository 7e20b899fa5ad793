# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A plain, self-contained copy of a job: links followed, settings applied, complete or not there at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle import settings
from bundle.classes import check_classes, check_settings
from bundle.initial_model import is_initial_model, put_initial_model
from bundle.jobs import Job, read_job
from bundle.link import TEXT_LINK_REMEDY, is_text_link
from bundle.selection import check_selection
from custom.data.folders import without_tilde
from custom.errors import BundleError

LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".DS_Store", ".ipynb_checkpoints")


def export(name_or_path: str, out: Path, assignments: Sequence[str] = (), code: bool = True) -> Job:
    """Writes the job to the new folder `out` and returns it as it lies there.

    Args:
        name_or_path: a job of the bundle, or a path to any job folder.
        out: a folder that does not exist yet, or is empty.
        assignments: `key=value` each.
        code: without it, app/custom stays away, for sites that have the code installed (workspace_templates).

    Raises:
        BundleError: the job, its links, a setting or `out` is not as it must be. `out` is then as it was.
    """
    out = without_tilde(out).absolute()
    values = settings.parse(assignments)
    job = read_job(name_or_path)
    _check_out(out, job.folder)
    _check_links(job.folder)
    initial_models = {key: value for key, value in values.items() if is_initial_model(key, job.configs)}
    settings.apply(job.configs, {key: value for key, value in values.items() if key not in initial_models})
    _lower_min_clients(job, values)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        copy = Path(temporary) / out.name
        shutil.copytree(job.folder, copy, ignore=LEFT_OUT)
        check_classes(job, copy)
        for source in initial_models.values():
            put_initial_model(job.configs, copy, source)
        changed = check_selection(job, copy)
        check_settings(job, copy)
        if changed or assignments:
            _write_configs(job, copy)
        if not code:
            for path in job.configs:
                shutil.rmtree(copy / path.parent.parent / "custom", ignore_errors=True)
        if out.exists():
            out.rmdir()
        copy.rename(out)
    return Job(out, job.meta, job.configs)


def _lower_min_clients(job: Job, values: dict[str, Any]) -> None:
    """Rounds that are to go on with fewer sites than FLARE would start the job with would never begin."""
    wanted = [value for key, value in values.items() if key.rpartition(".")[2] == "min_clients" and type(value) is int]
    if wanted:
        job.meta["min_clients"] = max(1, min(job.min_clients, *wanted))


def check_new(out: Path) -> None:
    """Raises BundleError where a folder is to be written and something is."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise BundleError(
            "exists and is not empty",
            code="output-unusable",
            key=str(out),
            remedy="choose another folder, or remove it first",
        )


def _check_out(out: Path, folder: Path) -> None:
    check_new(out)
    if folder in out.parents:
        raise BundleError(
            "lies inside the job itself", code="output-unusable", key=str(out), remedy="choose a folder outside"
        )


def _check_links(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.exists():
            raise BundleError(
                "is a link to a file that does not exist",
                code="job-links",
                key=str(path),
                remedy="run: python -m bundle link",
            )
        if path.suffix == ".py" and is_text_link(path):
            raise BundleError("is not valid Python", code="job-links", key=str(path), remedy=TEXT_LINK_REMEDY)


def _write_configs(job: Job, copy: Path) -> None:
    for path, config in {**job.configs, Path("meta.json"): job.meta}.items():
        (copy / path).unlink()  # it may have been a link, or read-only
        (copy / path).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
