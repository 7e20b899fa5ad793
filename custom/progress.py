# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""progress.jsonl: what happened in a job, a line an event, written by the server as it happens.

Every reader (report, live progress, dashboard) works from this one file. Rounds count from 1. A crash can cut the last
line short and no more.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

FILE_NAME = "progress.jsonl"
_lock = threading.Lock()


def write_atomically(path: Path, text: str) -> None:
    """The whole file or the old one, whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def append(run_dir: Path, event: str, **fields: Any) -> None:
    """Adds one event; `fields` are plain JSON types."""
    line = json.dumps({"event": event, "time": time.time(), **fields}) + "\n"
    with _lock, (run_dir / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(line)


def record(run_dir: Path, event: str, stem: str, result: dict[str, Any], table: str) -> None:
    """Writes a workflow's result as `stem`.json, its `table` as `stem`.csv, and adds it as an event."""
    write_atomically(run_dir / f"{stem}.json", json.dumps(result, indent=2) + "\n")
    write_atomically(run_dir / f"{stem}.csv", table)
    append(run_dir, event, **result)
