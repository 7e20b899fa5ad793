# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What went wrong in a job and how it ended, by its events."""

from __future__ import annotations

from bundle.events import Event
from bundle.report.model import Report

PERSONAL = {"fine_tuned": "fine_tune", "personalized": "personalize"}  # task by event
ENDED_EARLY = "the job ended early"
MOST_REPEATED = 40  # letters of a site's error that may come again in the fatal one


def what_went_wrong(events: list[Event]) -> list[str]:
    """What went wrong in the order it happened; sites with the same trouble share a line."""
    sites: dict[tuple[str, str], list[str]] = {}
    several = len({event.get("task") for event in events if event["event"] == "round"}) > 1
    for event in events:
        if event["event"] == "site_error":
            sites.setdefault((f"at {event.get('task')}", str(event.get("reason"))), []).append(str(event.get("site")))
        elif event["event"] == "round":
            for site, reason in (event.get("failed") or {}).items():
                if not any(site in names and reason == known for (_, known), names in sites.items()):
                    where = f"in {event.get('task')} round" if several else "in round"
                    sites.setdefault((f"{where} {event['round']}", reason), []).append(site)
        elif event["event"] in PERSONAL:
            for site, reason in (event.get("failed") or {}).items():  # a site told twice is named once, see below
                sites.setdefault((f"at {PERSONAL[event['event']]}", reason), []).append(site)
    errors = [f"{', '.join(dict.fromkeys(names))} {where}: {reason}" for (where, reason), names in sites.items()]
    for event in events:
        if event["event"] == "fatal":
            text = str(event.get("reason", ""))
            for _, reason in sites:
                text = text.replace(reason, "see above") if len(reason) > MOST_REPEATED else text
            errors.append(text)
    return list(dict.fromkeys(errors))


def judge(report: Report, by_kind: dict[str, list[Event]], rounds: list[Event]) -> str:
    """The status, by evidence; adds to the errors why a job that seems to have ended did not finish."""
    if "fatal" in by_kind:
        return "failed"
    if "job_ended" not in by_kind:
        return "incomplete"
    planned = [name for event in by_kind.get("job_started", []) for name in event.get("workflows", [])]
    done = {event.get("workflow") for event in by_kind.get("workflow_finished", [])}
    open_workflows = [name for name in planned if name not in done]
    last_of_task = {event.get("task"): event for event in rounds}
    early = [event for event in last_of_task.values() if event["round"] < event.get("num_rounds", 0)]
    if open_workflows or early:
        if open_workflows:
            what = f"workflow {open_workflows[0]} did not finish"
        else:
            task = f"{early[0].get('task')} " if len(last_of_task) > 1 else ""
            what = f"it ended after {task}round {early[0]['round']}"
        report.errors.append(f"{ENDED_EARLY}: {what}")
        return "incomplete"
    absent = sorted(_absent(report, by_kind, rounds))
    return f"completed without {', '.join(absent)}" if absent else "completed"


def _absent(report: Report, by_kind: dict[str, list[Event]], rounds: list[Event]) -> set[str]:
    """The sites that the result is without: those not in the last training round, and those not personalised.

    The last round makes the model, `fine_tune` a site's own one, and `personalize` scores those of a site's writers. A
    site that failed at an earlier round and came back, or at other scoring, is in the errors only.
    """
    absent: set[str] = set()
    for event in (*rounds[-1:], *(event for kind in PERSONAL for event in by_kind.get(kind, [])[-1:])):
        absent |= (set(report.site_names) - event.get("sites", {}).keys()) | set(event.get("failed") or {})
    return absent
