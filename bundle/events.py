# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Following progress.jsonl, the file a job's server writes as it goes; see custom/progress.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from custom.metric_ranges import LARGEST
from custom.printable import printable_all

Event = dict[str, Any]
MOST_CHARACTERS = 4000  # of a text
MOST_DIGITS = 20  # of a whole number, such as bytes
LISTS = {"job_started": ("sites", "workflows")}
OBJECTS = {  # by event: the fields that are objects; `rounds`, for one, is a number in another event
    "initialized": ("dataset", "samples", "left_out", "data_notes"),
    "continued": ("rounds",),
    "round": ("sites", "failed", "uncounted"),
    "validation": ("sites", "samples"),
    "fine_tuned": ("sites", "failed"),
    "personalized": ("sites", "failed"),
}
WHOLE = ("round", "num_rounds")


class Follower:
    """Gives the events of a growing file, each once. A line that is not whole yet, or never will be, is left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def poll(self) -> list[Event]:
        """The events since the last call; empty if the file is not there."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except OSError:
            return []
        self._offset += len(whole) + len(newline)
        return [event for line in whole.splitlines() if (event := parse(line)) is not None]


def read_events(path: Path) -> list[Event]:
    """All whole events of the file."""
    follower = Follower(path)
    events = follower.poll()
    last = parse(path.read_bytes()[follower._offset :]) if path.is_file() else None
    return [*events, last] if last else events


def parse(line: bytes) -> Event | None:
    """The event of one line; None if the line holds none, or one whose fields are of other types than we write.

    Its texts are printable, and its numbers are finite and not so large that sums of them, or tables, would suffer.
    """
    try:
        event = json.loads(line, parse_constant=_none, parse_float=_float, parse_int=_int)
        good = isinstance(event, dict) and isinstance(event.get("event"), str) and _has_types(event)
        return printable_all(event, MOST_CHARACTERS) if good else None
    except (ValueError, RecursionError):
        return None


def _none(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _float(text: str) -> float:
    value = float(text)
    if not abs(value) <= LARGEST:
        raise ValueError("a number that we would not write")
    return value


def _int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError("a number that we would not write")
    return int(text)


def _has_types(event: Event) -> bool:
    kind = event["event"]
    lists = [event[name] for name in LISTS.get(kind, ()) if name in event]
    objects = [event[name] for name in OBJECTS.get(kind, ()) if event.get(name) is not None]
    sites = event.get("sites") if kind in ("round", "validation") else None
    return (
        all(type(value) is list and all(type(item) is str for item in value) for value in lists)
        and all(type(value) is dict for value in objects)
        and all(type(facts) is dict for facts in (sites.values() if type(sites) is dict else ()))
        and all(type(event[name]) is int for name in WHOLE if event.get(name) is not None)
        and (kind != "round" or None not in (event.get("round"), event.get("num_rounds", 0)))
        and all(type(event[name]) in (int, float) for name in ("time", "seconds") if name in event)
    )
