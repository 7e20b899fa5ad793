# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a job that ended early has left at its server: where it stood, and the files that a continuation needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.arguments import components
from bundle.events import read_events
from bundle.jobs import check_config, check_meta, read_json
from bundle.report.locate import Run, unpack
from bundle.report.reading import read_run
from custom import checkpoint
from custom.checkpoint import Checkpoint
from custom.errors import BundleError
from custom.events import Best, Event, RoundEnded, Workflow, of_kind
from custom.learning.weights import load_weights
from custom.names import check_name
from custom.progress import FILE_NAME

APP = "app_server"
CONTINUED = "continued.pt"  # in the app of a continuation: the checkpoint that it goes on from
PERSISTOR = "PTFileModelPersistor"
FINAL, BEST = "FL_global_model.pt", "best_FL_global_model.pt"  # the persistor's defaults


@dataclass(frozen=True)
class EndedEarly:
    """One job that did not finish.

    Attributes:
        job_id: FLARE's.
        folder: the server's run folder.
        app: the server's app in it, with what the job has written there.
        meta: of the job.
        configs: as in `bundle.jobs.Job`, relative to a job folder whose app is `app_name`.
        app_name: the only app of the job.
        sites: the roster that it was started with.
        finished: ids of the workflows that ended well.
        checkpoint: the state after the last completed round.
    """

    job_id: str
    folder: Path
    app: Path
    meta: dict[str, Any]
    configs: dict[Path, dict[str, Any]]
    app_name: str
    sites: list[str]
    finished: set[str]
    checkpoint: Checkpoint

    def models(self) -> dict[str, str]:
        """File names of the models that FLARE's persistors write into the app, each with its persistor's id."""
        names = {}
        for part in components(self.configs):
            if part.path.rpartition(".")[2] == PERSISTOR:
                for argument, default in (("global_model_file_name", FINAL), ("best_global_model_file_name", BEST)):
                    names[check_name(part.arguments.get(argument, default), f"{part.id} {argument}")] = part.id
        return names


def read_ended_early(run: Run, extract_to: Path) -> EndedEarly:
    """Reads and checks what is left of a run.

    Args:
        run: at the server or in the simulator.
        extract_to: an empty folder, for a run that FLARE has packed.

    Raises:
        BundleError: the job is complete, or what it left is not enough to go on.
    """
    folder = _unpacked(run, extract_to)
    report = read_run(Run(run.job_id, folder))
    if report.finished:
        raise BundleError(
            f"is {report.status}: there is nothing to continue", code="not-resumable", key=f"job {run.job_id}"
        )
    meta = read_json(folder / "meta.json")
    check_meta(meta, f"job {run.job_id}")
    apps = meta.get("deploy_map", {})
    if len(apps) != 1:
        got = ", ".join(map(str, apps)) or "none"
        raise BundleError(
            code="not-resumable", key=f"job {run.job_id} deploy_map", expected="one app for server and sites", got=got
        )
    (app_name,) = apps
    app, events = folder / APP, read_events(folder / FILE_NAME)
    configs = {path.name: read_json(path) for path in sorted((app / "config").glob("config_fed_*.json"))}
    for name, config in configs.items():
        check_config(config, name)
    ended = EndedEarly(
        job_id=run.job_id,
        folder=folder,
        app=app,
        meta=meta,
        configs={Path(app_name, "config", name): config for name, config in configs.items()},
        app_name=app_name,
        sites=report.site_names,
        finished=_finished(events),
        checkpoint=_checkpoint(run.job_id, folder, app, events),
    )
    _check_model(ended)
    return ended


def _unpacked(run: Run, extract_to: Path) -> Path:
    if run.archive is None:
        return run.folder
    unpack(run.archive, extract_to)
    return extract_to


def _finished(events: list[Event]) -> set[str]:
    """Those after which another one began: FLARE says of any workflow that it ended, also when it aborts the job."""
    started = [event.workflow for event in of_kind(events, Workflow) if event.event == "workflow_started"]
    return set(started[:-1])


def _checkpoint(job_id: str, folder: Path, app: Path, events: list[Event]) -> Checkpoint:
    """The last one; that of a continuation which did not complete a round is the one that it began with."""
    path = folder / checkpoint.FILE_NAME
    if not path.exists() and (app / CONTINUED).exists():
        path = app / CONTINUED
    if not path.exists() and not of_kind(events, RoundEnded):
        remedy = "submit it again as it was"
        raise BundleError(
            "ended before its first round was completed", code="not-resumable", key=f"job {job_id}", remedy=remedy
        )
    return _with_last_best(checkpoint.load(path), events)


def _with_last_best(state: Checkpoint, events: list[Event]) -> Checkpoint:
    """With the best model of the file that lies there: it may have been scored after the last completed round."""
    best = [event.given() for event in of_kind(events, Best)][-1:]
    if best in ([], [state.best]):
        return state
    states = dict(state.states)
    for name, selection in state.states.items():
        if "best_val_metric" in selection:
            sign = -1.0 if (selection.get("negate_key_metric")) else 1.0
            raw = best[0]["value"]
            states[name] = {**selection, "best_val_metric": sign * raw, "best_raw_val_metric": raw}
    return state._replace(best=best[0], states=states)


def _check_model(ended: EndedEarly) -> None:
    """Is the checkpoint of the model that the job has saved otherwise?"""
    own = {name: value.shape for name, value in ended.checkpoint.model.items()}
    for name in ended.models():
        try:
            there = {key: value.shape for key, value in load_weights(ended.app / name).items()}
        except BundleError:  # not there, or of no use, and not needed
            continue
        for key in sorted(there.keys() | own.keys()):
            if there.get(key) != own.get(key):
                problem = f"the checkpoint is of another model than {name}"
                raise BundleError(problem, code="not-resumable", key=key, expected=there.get(key), got=own.get(key))
