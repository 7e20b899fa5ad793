# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Following progress.jsonl, the file a job's server writes as it goes; see custom/progress.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Event = dict[str, Any]


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
    """The event of one line; None if the line holds none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
