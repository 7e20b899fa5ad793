# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Is what a job was to leave behind there? By its configuration at the server; and what is known where nothing is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.report.causes import logs
from bundle.report.locate import Run
from custom.errors import LONGEST
from custom.events import Event, NotUnderstood, RoundEnded, of_kind
from custom.printable import printable_all
from custom.progress import FILE_NAME

CONFIG = Path("app_server/config/config_fed_server.json")
CLIENT_CONFIG = Path("app_server/config/config_fed_client.json")  # of the app that server and sites share
CROSS_SITE = Path("cross_site_val/cross_val_results.json")
RECORDS = {
    "InitializeGlobalWeights": "initialized",
    "ClosingValidation": "validation",
    "FineTune": "fine_tuned",
    "Personalize": "personalized",
}
ROUNDS = ("ScatterAndGather", "ContinuedRounds")
PROGRESS_LOG = "custom.widgets.progress_log.ProgressLog"
ROUND_STARTED = re.compile(r"Round (\d+) started")
SERVER_ENDED = "Server runner finished"
EMBEDDED = {"dataset": ("digits", "headlines", "synthetic"), "model_name_or_path": ("embedded",)}


def gap(run: Run, events: Sequence[Event]) -> str:
    """What a job that has ended should have left and did not; empty if there is no gap."""
    for damaged in of_kind(events, NotUnderstood):
        return f"line {damaged.line} of {FILE_NAME} cannot be read"
    kinds = {event.event for event in events}
    workflows, components = (_classes(run, kind) for kind in ("workflows", "components"))
    for name, kind in RECORDS.items():
        if name in workflows and kind not in kinds:
            return f"{FILE_NAME} has no result of {name}"
    if missing := _first_missing_round(run, events):
        return missing
    cross_site = "CrossSiteModelEval" in workflows and "ValidationJsonGenerator" in components
    if not cross_site or read_json(run.folder / CROSS_SITE):
        return ""
    return f"{CROSS_SITE} {'cannot be read' if (run.folder / CROSS_SITE).is_file() else 'does not exist'}"


def _first_missing_round(run: Run, events: Sequence[Event]) -> str:
    """The first round of a workflow, by its settings, that is not recorded; empty if there is none."""
    seen = {(event.task, event.round) for event in of_kind(events, RoundEnded)}
    for flow in _entries(read_json(run.folder / CONFIG), "workflows"):
        given = flow.get("args") or {}
        start, count = given.get("start_round", 0), given.get("num_rounds")
        first, kind = given.get("first_round", start), str(flow.get("path", "")).rpartition(".")[2]
        if kind not in ROUNDS or any(type(number) is not int for number in (start, first, count)):
            continue
        task, end = str(given.get("train_task_name", "train")), start + count
        if first < end and (task, first + 1) not in seen:
            return f"{FILE_NAME} has no round {first + 1} of {task}"
    return ""


def unrecorded(run: Run) -> str:
    """What FLARE's log says of a job without ProgressLog; empty for any other job."""
    known = read_json(run.folder / CONFIG)
    if (
        not known
        or (run.folder / FILE_NAME).is_file()
        or PROGRESS_LOG.rpartition(".")[2] in _classes(run, "components")
    ):
        return ""
    text = "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs(run, []))
    rounds = len(set(ROUND_STARTED.findall(text)))
    ended = "its server ended" if SERVER_ENDED in text else "it has no end"
    return (
        f"this job does not record its progress: {CONFIG.name} has no {PROGRESS_LOG}; "
        f"by FLARE's log {rounds} rounds were started, and {ended}"
    )


def asked_for_embedded(run: Run) -> set[str] | None:
    """Which of the arguments of EMBEDDED the job's configuration sets to embedded data or an embedded encoder.

    Returns:
        None if that is not known here: the sites have apps of their own.
    """
    paths = [run.folder / CLIENT_CONFIG]
    if run.sites_root:
        paths += sorted(run.sites_root.glob(f"*/{run.job_id}/app_*/config/{CLIENT_CONFIG.name}"))
    configs = [read_json(path) for path in paths if path.is_file()]
    arguments = [entry.get("args") or {} for config in configs for entry in _entries(config, "components")]
    asked = {name for name, own in EMBEDDED.items() if any(given.get(name) in own for given in arguments)}
    return asked if configs else None


def keeps_models(run: Run) -> bool:
    """Is FLARE's persistor of PyTorch models one of the job's components?"""
    return "PTFileModelPersistor" in _classes(run, "components")


def _classes(run: Run, kind: str) -> set[str]:
    return {str(entry.get("path", "")).rpartition(".")[2] for entry in _entries(read_json(run.folder / CONFIG), kind)}


def _entries(config: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    entries = config.get(kind)
    known = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [entry for entry in known if isinstance(entry.get("args") or {}, dict)]


def misread(run: Run) -> list[str]:
    """The files of the run that are there and hold something else than they should."""
    found = []
    for name in (Path("meta.json"), CONFIG, CLIENT_CONFIG, CROSS_SITE):
        if (run.folder / name).is_file() and _object(run.folder / name) is None:
            found.append(f"{name} was not understood: it holds no JSON object")
    for name in (CONFIG, CLIENT_CONFIG):
        config = read_json(run.folder / name)
        for kind in ("workflows", "components"):
            entries = config.get(kind, [])
            if not isinstance(entries, list) or len(_entries(config, kind)) != len(entries):
                found.append(f"{name} was not understood: {kind} are not a list of JSON objects with args")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if it cannot be read."""
    return _object(path) or {}


def _object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return printable_all(value, LONGEST) if isinstance(value, dict) else None
    except (OSError, ValueError, RecursionError):
        return None
