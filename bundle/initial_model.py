# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`initial_model=FILE_OR_FOLDER`: the model a job starts from, found, loaded safely once, and put into the job."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bundle.report.locate import find_run
from custom.errors import BundleError

IN_JOB = "initial_model.pt"
GLOBAL_MODEL = "FL_global_model.pt"
WORKFLOW = "InitializeGlobalWeights"


def put_initial_model(app_configs: dict[Path, dict[str, Any]], job_folder: Path, source: object) -> None:
    """Copies the model beside the server's config and tells the workflow to start from it.

    Raises:
        BundleError: the job has no InitializeGlobalWeights, or the file is missing, cut short or no plain weights.
    """
    path, arguments = _workflow(app_configs)
    if not isinstance(source, str) or not source:
        raise BundleError(key="--set initial_model", expected="a file or a folder", got=repr(source))
    file = find_model(Path(source).expanduser())
    _check_loads(file)
    shutil.copyfile(file, job_folder / path.parent.parent / IN_JOB)
    arguments["initial_model"] = IN_JOB


def _workflow(app_configs: dict[Path, dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    for path, config in app_configs.items():
        for workflow in config.get("workflows", []):
            if str(workflow.get("path", "")).rpartition(".")[2] == WORKFLOW:
                return path, workflow.setdefault("args", {})
    raise BundleError(f"the job has no {WORKFLOW} workflow, which reads it", key="--set initial_model")


def find_model(source: Path) -> Path:
    """`source` itself if it is a file, else the final global model of the job that ran in that folder."""
    if source.is_file():
        return source.resolve()
    if not source.is_dir():
        raise BundleError("no such file or folder", key=f"--set initial_model={source}")
    direct = [path for path in (source / GLOBAL_MODEL, source / "app_server" / GLOBAL_MODEL) if path.is_file()]
    if direct:
        return direct[0].resolve()
    run = find_run(source)
    model = run.folder / "app_server" / GLOBAL_MODEL
    if run.archive or not model.is_file():
        place = f"{run.archive}, FLARE's job store" if run.archive else str(run.folder)
        raise BundleError(
            f"there is no {GLOBAL_MODEL} to read in {place}",
            key=f"--set initial_model={source}",
            remedy="give the file itself, or a job downloaded with `nvflare job download`",
        )
    return model.resolve()


def _check_loads(file: Path) -> None:
    from custom.learning.weights import load_weights  # imports torch: a second that other exports need not wait

    load_weights(file)
