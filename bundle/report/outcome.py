# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What went wrong in a job and how it ended, by its events."""

from __future__ import annotations

from bundle.events import Event
from bundle.report.model import Report

MOST_REPEATED = 40  # letters of a site's error that may come again in the fatal one


def what_went_wrong(events: list[Event]) -> list[str]:
    """What went wrong in the order it happened; sites with the same trouble share a line."""
    sites: dict[tuple[str, str], list[str]] = {}
    for event in events:
        if event["event"] == "site_error":
            sites.setdefault((f"at {event.get('task')}", str(event.get("reason"))), []).append(str(event.get("site")))
        elif event["event"] == "round":
            for site, reason in (event.get("failed") or {}).items():
                if not any(site in names and reason == known for (_, known), names in sites.items()):
                    sites.setdefault((f"in round {event['round']}", reason), []).append(site)
        elif event["event"] == "fine_tuned":
            for site, reason in (event.get("failed") or {}).items():  # a site told twice is named once, see below
                sites.setdefault(("at fine_tune", reason), []).append(site)
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
    last = rounds[-1] if rounds else None
    if open_workflows or (last and last["round"] < last.get("num_rounds", 0)):
        what = (
            f"workflow {open_workflows[0]} did not finish"
            if open_workflows
            else f"it ended after round {last and last['round']}"
        )
        report.errors.append(f"the job ended early: {what}")
        return "incomplete"
    absent = sorted(_absent(report, by_kind, rounds))
    return f"completed without {', '.join(absent)}" if absent else "completed"


def _absent(report: Report, by_kind: dict[str, list[Event]], rounds: list[Event]) -> set[str]:
    """The sites that the result is without: those not in the last training round, and those not in `fine_tune`.

    The last round makes the model, and `fine_tune` a site's own model. A site that failed at an earlier round and came
    back, or at scoring, is in the errors only.
    """
    absent: set[str] = set()
    for event in (*rounds[-1:], *by_kind.get("fine_tuned", [])[-1:]):
        absent |= (set(report.site_names) - event.get("sites", {}).keys()) | set(event.get("failed") or {})
    return absent
