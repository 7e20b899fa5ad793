# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The job that continues one that ended early: the same, from the last completed round on."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from bundle.ended_early import CONTINUED, EndedEarly
from bundle.export import LEFT_OUT
from bundle.jobs import Job
from custom import checkpoint
from custom.errors import BundleError
from custom.learning.weights import load_weights

INITIALIZE, ROUNDS, CONTINUED_ROUNDS = "InitializeGlobalWeights", "ScatterAndGather", "ContinuedRounds"
SAVE, CARRY_OVER = "custom.widgets.save_checkpoint.SaveCheckpoint", "custom.widgets.carry_over.CarryOver"
KEPT_META = ("name", "resource_spec", "min_clients", "deploy_map", "launcher_spec", "scope", "study")
SIGNATURE = "__nvfl_sig.json"  # FLARE's, of each folder of a submitted job


def make_continuation(ended: EndedEarly, out: Path, workspaces: Path | None = None) -> Job:
    """Writes the job to the new folder `out`.

    Args:
        ended: the job to be continued.
        out: its name is the job's folder name.
        workspaces: in the simulator, the workspace of the earlier run, from which the sites take what they had kept.

    Raises:
        BundleError: the job is not put together in a way that can be continued.
    """
    configs = copy.deepcopy(ended.configs)
    server = next((path for path in configs if path.name == "config_fed_server.json"), None)
    if server is None:
        raise BundleError("no config_fed_server.json", code="not-resumable", key=str(ended.app))
    _change_server(ended, configs[server])
    for path, config in configs.items():
        if path.name == "config_fed_client.json":
            _change_client(ended, config, workspaces)
    app = out / ended.app_name
    models = set(ended.models())
    shutil.copytree(
        ended.app, app, ignore=lambda folder, names: {*LEFT_OUT(folder, names), *_written(ended, folder, names, models)}
    )
    checkpoint.save(app / CONTINUED, ended.checkpoint)
    for path, config in configs.items():
        (out / path).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    meta = {name: ended.meta[name] for name in KEPT_META if name in ended.meta}
    meta["mandatory_clients"] = ended.sites  # the data are split over them
    (out / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return Job(out, meta, configs)


def _written(ended: EndedEarly, folder: str, names: list[str], models: set[str]) -> set[str]:
    """What the job, or FLARE, has written into its app and the continuation does not need."""
    unfinished = {name for name in names if name.startswith(".") and name.endswith(".tmp")} | {SIGNATURE}
    if Path(folder) != ended.app:
        return unfinished
    return unfinished | {name for name in models & set(names) if not _is_whole(ended.app / name)}


def _is_whole(path: Path) -> bool:
    try:
        load_weights(path)
    except BundleError:
        return False
    return True


def _change_server(ended: EndedEarly, config: dict[str, Any]) -> None:
    state, workflows = ended.checkpoint, config.get("workflows", [])
    initialize = [flow for flow in workflows if _kind(flow) == INITIALIZE]
    if not initialize:
        raise BundleError(
            f"the job has no {INITIALIZE} workflow, which starts from a model",
            code="not-resumable",
            key=f"job {ended.job_id}",
        )
    names = [str(flow.get("id")) for flow in workflows]
    if state.workflow not in names and state.round < state.num_rounds:  # else an earlier continuation has left it out
        raise BundleError(
            "the checkpoint is of a workflow that the job does not have",
            code="not-resumable",
            key=f"job {ended.job_id}",
            expected=", ".join(names),
            got=state.workflow,
        )
    initialize[0].setdefault("args", {})["initial_model"] = CONTINUED
    config["workflows"] = [flow for flow in workflows if flow is initialize[0] or _is_open(ended, flow)]
    for flow in config["workflows"]:
        if flow.get("id") == state.workflow:
            if _kind(flow) not in (ROUNDS, CONTINUED_ROUNDS):
                raise BundleError(
                    "is not of a kind that can be continued in its middle",
                    code="not-resumable",
                    key=f"workflow {state.workflow}",
                    expected=f"FLARE's {ROUNDS}",
                    got=flow.get("path"),
                    remedy="start a new job from its model: --set initial_model=...",
                )
            flow["path"] = "controllers.continued_rounds.ContinuedRounds"
            flow.setdefault("args", {})["first_round"] = state.round
    parts = [part for part in config.get("components", []) if part.get("path") == SAVE]
    if not parts:
        raise BundleError(f"the job has no component {SAVE}", code="not-resumable", key=f"job {ended.job_id}")
    parts[0].setdefault("args", {})["continue_from"] = CONTINUED


def _is_open(ended: EndedEarly, flow: dict[str, Any]) -> bool:
    """Is there anything left to do?"""
    state, name = ended.checkpoint, str(flow.get("id"))
    if name == state.workflow:
        return state.round < state.num_rounds
    if name in state.rounds:
        return False  # an earlier phase of training
    return name not in ended.finished


def _kind(flow: dict[str, Any]) -> str:
    return str(flow.get("path", "")).rpartition(".")[2]


def _change_client(ended: EndedEarly, config: dict[str, Any], workspaces: Path | None) -> None:
    parts = [part for part in config.get("components", []) if part.get("path") != CARRY_OVER]
    arguments = {"job_id": ended.checkpoint.job_id} | ({"workspaces": str(workspaces)} if workspaces else {})
    config["components"] = [*parts, {"id": "carry_over", "path": CARRY_OVER, "args": arguments}]
