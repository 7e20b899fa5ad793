# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Text that a hostile site or file might hold: what a terminal, a log or a page must never get of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

FORGED = "FORGED LINE"
# Clears the screen, sets the title, rings, returns, breaks the line (three ways), C1's CSI, bidi marks, a surrogate.
CODES = "\x1b[2J\x1b]0;title\x07\r\x0b\x85\u2028\x9b31m\u202e\u2066\u200b\ud800"
EVIL = f"{CODES}\n{FORGED} "
LONG = "x" * 1_000_000
READABLE = "Hôpital 漢字 клиника"


def fit(text: str, longest_line: int = 20_000) -> bool:
    """Is the text printable, but for line breaks, without a forged line, and without a line of a megabyte?"""
    lines = text.split("\n")
    return all(line.isprintable() and len(line) <= longest_line and not line.startswith(FORGED) for line in lines)


def poisoned(value: Any, evil: str, keep: Collection[str] = ()) -> Iterator[Any]:
    """Copies of a value of JSON, in each of which one text or one key within it, but `keep`, begins with `evil`."""
    if isinstance(value, str):
        yield evil + value
    elif isinstance(value, list):
        for place, entry in enumerate(value):
            yield from ([*value[:place], bad, *value[place + 1 :]] for bad in poisoned(entry, evil, keep))
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield from ({**value, name: bad} for bad in poisoned(entry, evil, keep))
            if name not in keep:
                yield {(evil + key if key == name else key): kept for key, kept in value.items()}
