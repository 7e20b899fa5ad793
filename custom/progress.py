# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""progress.jsonl: what happened in a job, a line an event, written by the server as it happens.

Every reader (report, live progress, dashboard) works from this one file, by the schema in custom/events.py. Rounds
count from 1. A crash can cut the last line short and no more.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
import time
import zlib
from numbers import Number
from pathlib import Path
from typing import Any

FILE_NAME = "progress.jsonl"
STATS = "progress"  # group of FLARE's `show_stats` that holds PACKED, see `pack`
PACKED = "jsonl_zlib_base64"
MOST_BYTES = 200_000_000  # unpacked; 10,000 rounds of 50 sites have about as many
_lock = threading.Lock()


def write_atomically(path: Path, content: str | bytes) -> None:
    """The whole file or the old one, whatever happens; an OSError names the file.

    A link that others have put into the folder is not written through: none has the temporary file's name, and one of
    the file's own name is replaced.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names none
        raise


def append(run_dir: Path, event: str, **fields: Any) -> None:
    """Adds one event; `fields` are plain JSON types, or numbers of NumPy."""
    line = json.dumps({"event": event, "time": time.time(), **fields}, default=_plain, ensure_ascii=False) + "\n"
    with _lock, (run_dir / FILE_NAME).open("ab") as file:
        file.write(line.encode("utf-8", "replace"))  # a lone surrogate, of a site's text, is no Unicode


def read(run_dir: Path) -> bytes:
    """The whole lines so far."""
    try:
        content = (run_dir / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]


def record(run_dir: Path, event: str, stem: str, result: dict[str, Any], table: str) -> None:
    """Writes a workflow's result as `stem`.json, its `table` as `stem`.csv, and adds it as an event."""
    write_atomically(run_dir / f"{stem}.json", json.dumps(result, indent=2, default=_plain) + "\n")
    write_atomically(run_dir / f"{stem}.csv", table)
    append(run_dir, event, **result)


def _plain(value: object) -> object:
    """A number of NumPy, which is not imported here: the dashboard has no use for it."""
    if not (isinstance(value, Number) and hasattr(value, "item")):
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return value.item()


def pack(lines: bytes) -> str:
    """What is sent of the file while the job runs: all of it, a tenth as large, as text that fits into JSON."""
    return base64.b64encode(zlib.compress(lines)).decode("ascii")


def unpack(packed: str) -> bytes:
    """The lines again.

    Raises:
        ValueError: it was not made by `pack`, or is too large.
    """
    try:
        stream = zlib.decompressobj()
        lines = stream.decompress(base64.b64decode(packed, validate=True), MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"not packed progress: {error}") from error
    if not stream.eof:
        raise ValueError(f"packed progress is cut short, or of more than {MOST_BYTES / 1e6:.0f} MB")
    return lines
