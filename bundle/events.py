# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Following progress.jsonl, the file a job's server writes as it goes; see custom/progress.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Event = dict[str, Any]
LISTS = {"job_started": ("sites", "workflows")}  # by event; in all others `sites` is an object, as OBJECTS are
OBJECTS = ("sites", "samples", "failed", "left_out", "data_notes", "uncounted", "dataset", "rounds")
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
    """The event of one line; None if the line holds none, or one whose fields are of other types than we write."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) and _has_types(event) else None


def _has_types(event: Event) -> bool:
    lists = LISTS.get(event["event"], ())
    objects = {name: event[name] for name in OBJECTS if name not in lists and event.get(name) is not None}
    sites = objects.get("sites", {})
    return (
        all(
            type(event[name]) is list and all(type(item) is str for item in event[name])
            for name in lists
            if name in event
        )
        and all(type(value) is dict for value in objects.values())
        and all(type(facts) is dict for facts in (sites.values() if type(sites) is dict else ()))
        and all(type(event[name]) is int for name in WHOLE if event.get(name) is not None)
        and (event["event"] != "round" or None not in (event.get("round"), event.get("num_rounds", 0)))
        and all(type(event[name]) in (int, float) for name in ("time", "seconds") if name in event)
    )
