# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Is what a job was to leave behind there? By its configuration at the server; and what is known where nothing is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bundle.events import Event, parse
from bundle.report.causes import logs
from bundle.report.locate import Run
from custom.errors import LONGEST
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


def gap(run: Run, events: list[Event]) -> str:
    """What a job that has ended should have left and did not; empty if there is no gap."""
    if line := _damaged_line(run.folder / FILE_NAME):
        return f"line {line} of {FILE_NAME} cannot be read"
    kinds = {event["event"] for event in events}
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


def _first_missing_round(run: Run, events: list[Event]) -> str:
    """The first round of a workflow, by its settings, that is not recorded; empty if there is none."""
    seen = {(event.get("task"), event["round"]) for event in events if event["event"] == "round"}
    for flow in _entries(read_json(run.folder / CONFIG), "workflows"):
        given = flow.get("args") or {}
        first, count = given.get("first_round", given.get("start_round", 0)), given.get("num_rounds")
        if (
            str(flow.get("path", "")).rpartition(".")[2] not in ROUNDS
            or type(first) is not int
            or type(count) is not int
        ):
            continue
        task, end = given.get("train_task_name", "train"), given.get("start_round", 0) + count
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


def asked_for_embedded(run: Run) -> set[str]:
    """Which of the arguments of EMBEDDED the job's configuration sets to embedded data or an embedded encoder."""
    arguments = [entry.get("args") or {} for entry in _entries(read_json(run.folder / CLIENT_CONFIG), "components")]
    return {name for name, own in EMBEDDED.items() if any(given.get(name) in own for given in arguments)}


def _damaged_line(path: Path) -> int:
    """Counted from 1, of a line that a newline ends; 0 if there is none. What a crash cut off has no newline."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    return next((number for number, line in enumerate(lines, 1) if parse(line) is None), 0)


def _classes(run: Run, kind: str) -> set[str]:
    return {str(entry.get("path", "")).rpartition(".")[2] for entry in _entries(read_json(run.folder / CONFIG), kind)}


def _entries(config: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    entries = config.get(kind)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return printable_all(value, LONGEST) if isinstance(value, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}
