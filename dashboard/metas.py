# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""From the meta that FLARE keeps of a job to what the dashboard shows of it, and the reason why it does not run.

Part of a meta is from whoever submitted the job, with whatever tool: what is not as expected counts as not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from custom.printable import printable_all
from dashboard.system import RUNNING, Job

ALL_SITES, SERVER = "@ALL", "server"
CUSTOM_PROPS, LAUNCHED = "custom_props", "launched"  # where dashboard.launch wrote what was asked for
DURATION = re.compile(r"(?:(?P<days>\d+) days?, )?(?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d(?:\.\d+)?)")
TOO_FEW = re.compile(r"connected sites \((\d+)\) < min_sites \((\d+)\)")
STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d: ")
GAVE_UP = "exceeded max schedule count"
DID_NOT_START = ("FINISHED:FAILED_TO_RUN", "FINISHED:CAN_NOT_SCHEDULE", "FINISHED:ABANDONED")
LAST_MOMENT = 32503680000.0  # the year 3000
LOST = "FLARE's server was restarted while the job ran, and did not take it up again; launch it again"


def to_job(meta: Mapping[str, Any], server_started: float | None = None) -> Job:
    """One entry of `list_jobs(detailed=True)`.

    Args:
        meta: the entry.
        server_started: Unix seconds by the server's clock: a job that has been running for longer is not.
    """
    meta = printable_all(dict(meta))
    status, launched = str(meta.get("status", "")), _launched(meta)
    started = _moment(meta.get("start_time"))
    lost = status == RUNNING and started is not None and server_started is not None and started < server_started
    return Job(
        job_id=str(meta.get("job_id", "")),
        name=str(meta.get("name") or meta.get("job_folder_name") or ""),
        status=status,
        submitter=str(meta.get("submitter_name", "")),
        submitted=_number(meta.get("submit_time")),
        seconds=None if lost else duration(meta.get("duration")),
        sites=_sites(meta, launched),
        settings=MappingProxyType(dict(_dict(launched, "settings"))),
        launched_here=bool(launched),
        start_from=str(launched.get("start_from") or ""),
        reason=LOST if lost else reason(meta),
        lost=lost,
    )


def reason(meta: Mapping[str, Any]) -> str:
    """Why the job waits or did not start, in FLARE's words if there are no better ones; empty if nothing is wrong."""
    status = meta.get("status")
    if status == "SUBMITTED":
        said = _last_attempt(meta)
        return f"it waits: {said}" if said else ""
    if status not in DID_NOT_START:
        return ""
    if refused := _refused(meta):
        return f"it could not be sent to {refused}"
    if said := _last_attempt(meta):
        return f"FLARE gave up starting it: {said}"
    return "FLARE could not start it, and says why only in its server's own log"


def duration(text: Any) -> float | None:
    """Seconds of what Python makes of a timedelta; None for `N/A` and the like."""
    found = DURATION.fullmatch(text) if isinstance(text, str) else None
    if not found:
        return None
    days, hours, minutes = (int(found[name] or 0) for name in ("days", "hours", "minutes"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + float(found["seconds"])


def _last_attempt(meta: Mapping[str, Any]) -> str:
    """What the scheduler said when it last tried."""
    attempts = [STAMP.sub("", str(line)) for line in _list(meta, "schedule_history")]
    attempts = [said for said in attempts if not said.startswith(GAVE_UP) and said != "scheduled"]
    if not attempts:
        return ""
    if few := TOO_FEW.search(attempts[-1]):
        return f"{few[1]} of its sites {'is' if few[1] == '1' else 'are'} connected, and it needs {few[2]}"
    return attempts[-1]


def _refused(meta: Mapping[str, Any]) -> str:
    """The sites, or the server, that did not take the job, with what they said."""
    details = [str(detail) for detail in _list(meta, "job_deploy_detail")]
    return "; ".join(detail for detail in details if not detail.endswith(": OK"))


def _launched(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    return _dict(_dict(meta, CUSTOM_PROPS), LAUNCHED)


def _sites(meta: Mapping[str, Any], launched: Mapping[str, Any]) -> tuple[str, ...]:
    if chosen := _list(launched, "sites"):
        return tuple(sorted(str(site) for site in chosen))
    deploy_map = _dict(meta, "deploy_map")
    named = {site for app in deploy_map for site in _list(deploy_map, app) if isinstance(site, str)}
    return () if ALL_SITES in {site.upper() for site in named} else tuple(sorted(named - {SERVER}))


def _dict(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = holder.get(key)
    return value if isinstance(value, dict) else {}


def _list(holder: Mapping[str, Any], key: str) -> list[Any]:
    value = holder.get(key)
    return value if isinstance(value, list) else []


def _moment(iso: Any) -> float | None:
    try:
        return datetime.fromisoformat(iso).timestamp() if iso else None
    except (TypeError, ValueError, OverflowError):
        return None


def _number(value: Any) -> float:
    """Unix seconds; 0 for what is none."""
    return float(value) if isinstance(value, int | float) and 0 < value < LAST_MOMENT else 0.0
