# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What went wrong in a job and how it ended, by its events."""

from __future__ import annotations

from collections.abc import Sequence

from bundle.report.model import Report
from custom.events import (
    Event,
    FineTuned,
    JobEnded,
    JobStarted,
    Personalized,
    Remark,
    RoundEnded,
    SiteError,
    Workflow,
    of_kind,
)
from custom.progress import FILE_NAME

PERSONAL: dict[type[FineTuned | Personalized], str] = {FineTuned: "fine_tune", Personalized: "personalize"}  # the task
ENDED_EARLY = "the job ended early"
MOST_REPEATED = 40  # letters of a site's error that may come again in the fatal one


def what_went_wrong(events: Sequence[Event]) -> list[str]:
    """What went wrong in the order it happened; sites with the same trouble share a line."""
    sites: dict[tuple[str, str], list[str]] = {}
    several = len({event.task for event in of_kind(events, RoundEnded)}) > 1
    for event in events:
        if isinstance(event, SiteError):
            sites.setdefault((f"at {event.task}", event.reason), []).append(event.site)
        elif isinstance(event, RoundEnded):
            for site, reason in event.failed.items():
                if not any(site in names and reason == known for (_, known), names in sites.items()):
                    where = f"in {event.task} round" if several else "in round"
                    sites.setdefault((f"{where} {event.round}", reason), []).append(site)
        elif isinstance(event, FineTuned | Personalized):
            for site, reason in event.failed.items():  # a site told twice is named once, see below
                sites.setdefault((f"at {PERSONAL[type(event)]}", reason), []).append(site)
    errors = [f"{', '.join(dict.fromkeys(names))} {where}: {reason}" for (where, reason), names in sites.items()]
    for fatal in _named(events, "fatal"):
        text = fatal.reason
        for _, reason in sites:
            text = text.replace(reason, "see above") if len(reason) > MOST_REPEATED else text
        errors.append(text)
    return list(dict.fromkeys(errors))


def warnings(events: Sequence[Event]) -> list[str]:
    """What a reader should know all the same."""
    return [event.reason for event in _named(events, "warning")]


def _named(events: Sequence[Event], name: str) -> list[Remark]:
    return [event for event in of_kind(events, Remark) if event.event == name]


def judge(report: Report, events: Sequence[Event], rounds: Sequence[RoundEnded]) -> str:
    """The status, by evidence; adds to the errors why a job that seems to have ended did not finish.

    Of a job that FLARE has started more than once, in one folder, the last start counts.
    """
    starts = [index for index, event in enumerate(events) if isinstance(event, JobStarted)]
    events = events[starts[-1] if starts else 0 :]
    if _named(events, "fatal"):
        return "failed"
    if not of_kind(events, JobEnded):
        return "incomplete"
    if what := _not_done(events, rounds):
        report.errors.append(f"{ENDED_EARLY}: {what}")
        return "incomplete"
    if missing := _not_recorded(events, rounds):
        report.errors.append(f"{FILE_NAME} is not whole: {missing}")
        return "incomplete"
    absent = sorted(_absent(report, events, rounds))
    return f"completed without {', '.join(absent)}" if absent else "completed"


def _not_done(events: Sequence[Event], rounds: Sequence[RoundEnded]) -> str:
    """The first thing that was planned and not done; empty if all was."""
    planned = [name for event in of_kind(events, JobStarted) for name in event.workflows]
    done = {event.workflow for event in of_kind(events, Workflow) if event.event == "workflow_finished"}
    left = [name for name in planned if name not in done]
    if left:
        aborted = of_kind(events, JobEnded)[-1].aborted
        return f"FLARE was told to end it in workflow {left[0]}" if aborted else f"workflow {left[0]} did not finish"
    last_of_task = {event.task: event for event in rounds}
    early = [event for event in last_of_task.values() if event.round < event.num_rounds]
    if not early:
        return ""
    task = f"{early[0].task} " if len(last_of_task) > 1 else ""
    return f"it ended after {task}round {early[0].round}"


def _not_recorded(events: Sequence[Event], rounds: Sequence[RoundEnded]) -> str:
    """The first gap in the record; empty if there is none."""
    if not any(event.workflows for event in of_kind(events, JobStarted)):
        return "it does not say which workflows were planned"
    before: dict[str, int] = {}
    for event in rounds:
        if event.round > before.get(event.task, event.round - 1) + 1:
            return f"round {before[event.task] + 1} is missing"
        before[event.task] = event.round
    return ""


def _absent(report: Report, events: Sequence[Event], rounds: Sequence[RoundEnded]) -> set[str]:
    """The sites that the result is without: those not in the last training round, and those not personalised.

    The last round makes the model, `fine_tune` a site's own one, and `personalize` scores those of a site's writers. A
    site that failed at an earlier round and came back, or at other scoring, is in the errors only.
    """
    absent: set[str] = set()
    for event in (*rounds[-1:], *(event for kind in PERSONAL for event in of_kind(events, kind)[-1:])):
        absent |= (set(report.site_names) - event.sites.keys()) | event.failed.keys()
    return absent
