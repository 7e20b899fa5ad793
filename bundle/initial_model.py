# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`initial_model=FILE, FOLDER or JOB_ID`: the model a job starts from, found, loaded safely once, put into the job."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from bundle.poc import poc_workspace
from bundle.report.locate import Run, find_run, opened
from bundle.settings import find
from custom.data.folders import without_tilde
from custom.errors import BundleError

INITIAL_MODEL = "initial_model"  # the argument
IN_JOB = "initial_model.pt"
# The final one, and that of perfedavg without meta-learning.
GLOBAL_MODELS = ("app_server/FL_global_model.pt", "app_server/fed_avg_model.pt")
WORKFLOW = "InitializeGlobalWeights"
JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_initial_model(key: str, configs: dict[Path, dict[str, Any]]) -> bool:
    """Does a key of `--set` mean the argument of InitializeGlobalWeights?

    Raises:
        BundleError: it means nothing in this job, or several arguments.
    """
    if key == INITIAL_MODEL:
        return True
    if key.rpartition(".")[2] != INITIAL_MODEL:
        return False
    return any(part.path.rpartition(".")[2] == WORKFLOW for part, _ in find(configs, key))


def put_initial_model(app_configs: dict[Path, dict[str, Any]], job_folder: Path, source: object) -> None:
    """Copies the model beside the server's config and tells the workflow to start from it.

    Raises:
        BundleError: the job has no InitializeGlobalWeights, or the file is missing, cut short or no plain weights.
    """
    path, arguments = _workflow(app_configs)
    if not isinstance(source, str) or not source:
        raise BundleError(
            code="setting-value",
            key=f"--set {INITIAL_MODEL}",
            expected="a file, a folder or a job's id",
            got=repr(source),
        )
    copy = job_folder / path.parent.parent / IN_JOB
    _copy(source, copy)
    _check_loads(copy, source)
    arguments[INITIAL_MODEL] = IN_JOB


def _workflow(app_configs: dict[Path, dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    for path, config in app_configs.items():
        for workflow in config.get("workflows", []):
            if str(workflow.get("path", "")).rpartition(".")[2] == WORKFLOW:
                return path, workflow.setdefault("args", {})
    raise BundleError(
        f"the job has no {WORKFLOW} workflow, which reads it", code="job-component", key=f"--set {INITIAL_MODEL}"
    )


def _copy(source: str, copy: Path) -> None:
    """Copies `source` itself if it is a file, else the final global model of the job that it names."""
    path = without_tilde(source)
    if path.is_file():
        shutil.copyfile(path, copy)
        return
    run = find_run(path) if path.is_dir() else _run_of_job(source, path)
    for name in GLOBAL_MODELS:
        try:
            if run.archive:
                with opened(run.archive) as archive, archive.open(name) as model, copy.open("wb") as file:
                    shutil.copyfileobj(model, file)
            else:
                shutil.copyfile(run.folder / name, copy)
        except (FileNotFoundError, KeyError):
            continue
        return
    raise BundleError(
        f"job {run.job_id} left no {GLOBAL_MODELS[0]} in {run.archive or run.folder}",
        code="model-file-missing",
        key=f"--set {INITIAL_MODEL}={source}",
        remedy="give the file itself, or the folder of a job that finished a round",
    )


def _run_of_job(source: str, path: Path) -> Run:
    """The run of the job with the id `path.name`, under the folder before it, or in the POC if there is none."""
    key = f"--set {INITIAL_MODEL}={source}"
    if not JOB_ID.fullmatch(path.name):
        raise BundleError("no such file or folder, and no id of a job", code="model-file-missing", key=key)
    folder, setting = (path.parent, "") if path.name != source else poc_workspace()
    looked = f"looked under {folder}" + (f" ({setting})" if setting else "")
    try:
        return find_run(folder, path.name)
    except BundleError as error:
        remedy = "give FOLDER/ID, where FOLDER is a server's startup kit, its job store, a POC or what was downloaded"
        raise BundleError(f"no such job ({looked})", code="model-file-missing", key=key, remedy=remedy) from error


def _check_loads(copy: Path, source: str) -> None:
    from custom.learning.weights import load_weights  # imports torch: a second that other exports need not wait

    try:
        load_weights(copy)
    except BundleError as error:
        raise BundleError(
            str(error).replace(str(copy), source), code=error.code, key=f"--set {INITIAL_MODEL}"
        ) from error
