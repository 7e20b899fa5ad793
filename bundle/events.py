# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Following progress.jsonl, the file a job's server writes as it goes; its events are those of custom/events.py."""

from __future__ import annotations

from pathlib import Path

from custom.errors import BundleError
from custom.events import LONGEST_LINE, Event, NotUnderstood, parse


class Follower:
    """Gives the events of a growing file, each once. A last line that is not whole yet waits, or never comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = self._lines = 0
        self._inside_long = False

    def poll(self) -> list[Event]:
        """The events since the last call; empty if the file is not there."""
        return self._read()[0]

    def _read(self) -> tuple[list[Event], bytes]:
        """The events, and what is there of a line that is not whole. Of a line without end no more than the limit."""
        events: list[Event] = []
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                while line := file.readline(LONGEST_LINE + 1):
                    whole = line.endswith(b"\n")
                    if not whole and len(line) <= LONGEST_LINE and not self._inside_long:
                        return events, line
                    self._offset += len(line)
                    first, self._inside_long = not self._inside_long, not whole
                    self._lines += first
                    if first and line.strip():
                        events.append(parse(line, self._lines))
        except OSError:
            pass
        return events, b""


def read_events(path: Path) -> list[Event]:
    """All events of the file; a last line without its newline counts if it is one."""
    follower = Follower(path)
    events, rest = follower._read()
    last = parse(rest, follower._lines + 1)
    return events if isinstance(last, NotUnderstood) else [*events, last]


def check_events(events: list[Event], path: Path) -> None:
    """Raises BundleError where there are lines, and none of them is an event."""
    if events and all(isinstance(event, NotUnderstood) for event in events):
        raise BundleError(
            f"is not a record of a job: none of its {len(events)} lines was understood",
            code="result-damaged",
            key=str(path),
            remedy="copy or download the job again",
        )
