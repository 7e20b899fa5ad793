# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What went wrong in a job and how it ended, by its events."""

from __future__ import annotations

from bundle.events import Event
from bundle.report.model import Report
from custom.progress import FILE_NAME

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


def judge(report: Report, events: list[Event], rounds: list[Event]) -> str:
    """The status, by evidence; adds to the errors why a job that seems to have ended did not finish.

    Of a job that FLARE has started more than once, in one folder, the last start counts.
    """
    starts = [index for index, event in enumerate(events) if event["event"] == "job_started"]
    by_kind: dict[str, list[Event]] = {}
    for event in events[starts[-1] if starts else 0 :]:
        by_kind.setdefault(event["event"], []).append(event)
    if "fatal" in by_kind:
        return "failed"
    if "job_ended" not in by_kind:
        return "incomplete"
    if what := _not_done(by_kind, rounds):
        report.errors.append(f"{ENDED_EARLY}: {what}")
        return "incomplete"
    if missing := _not_recorded(by_kind, rounds):
        report.errors.append(f"{FILE_NAME} is not whole: {missing}")
        return "incomplete"
    absent = sorted(_absent(report, by_kind, rounds))
    return f"completed without {', '.join(absent)}" if absent else "completed"


def _not_done(by_kind: dict[str, list[Event]], rounds: list[Event]) -> str:
    """The first thing that was planned and not done; empty if all was."""
    planned = [name for event in by_kind.get("job_started", []) for name in event.get("workflows", [])]
    done = {event.get("workflow") for event in by_kind.get("workflow_finished", [])}
    left = [name for name in planned if name not in done]
    if left:
        aborted = by_kind["job_ended"][-1].get("aborted")
        return f"FLARE was told to end it in workflow {left[0]}" if aborted else f"workflow {left[0]} did not finish"
    last_of_task = {event.get("task"): event for event in rounds}
    early = [event for event in last_of_task.values() if event["round"] < event.get("num_rounds", 0)]
    if not early:
        return ""
    task = f"{early[0].get('task')} " if len(last_of_task) > 1 else ""
    return f"it ended after {task}round {early[0]['round']}"


def _not_recorded(by_kind: dict[str, list[Event]], rounds: list[Event]) -> str:
    """The first gap in the record; empty if there is none."""
    if not any(event.get("workflows") for event in by_kind.get("job_started", [])):
        return "it does not say which workflows were planned"
    before: dict[object, int] = {}
    for event in rounds:
        task, number = event.get("task"), event["round"]
        if number > before.get(task, number - 1) + 1:
            return f"round {before[task] + 1} is missing"
        before[task] = number
    return ""


def _absent(report: Report, by_kind: dict[str, list[Event]], rounds: list[Event]) -> set[str]:
    """The sites that the result is without: those not in the last training round, and those not personalised.

    The last round makes the model, `fine_tune` a site's own one, and `personalize` scores those of a site's writers. A
    site that failed at an earlier round and came back, or at other scoring, is in the errors only.
    """
    absent: set[str] = set()
    for event in (*rounds[-1:], *(event for kind in PERSONAL for event in by_kind.get(kind, [])[-1:])):
        absent |= (set(report.site_names) - event.get("sites", {}).keys()) | set(event.get("failed") or {})
    return absent
