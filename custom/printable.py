# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Text and numbers of others, made safe for a log line, a terminal, a page: printable, on one line, of limited length.

A site's name for a metric or a data set, the message of an exception, a line of a downloaded file may hold control
characters: codes that clear a terminal or set its title, line breaks that forge a line of a log, marks that turn the
direction of writing. Letters of any language stay as they are.
"""

from __future__ import annotations

import reprlib
from dataclasses import fields, is_dataclass, replace
from numbers import Real
from typing import Any, TypeVar

T = TypeVar("T")
LONGEST = 1000  # characters of a text
LONGEST_NAME = 100  # of a name, such as that of a metric, and of a value in an error
UNPRINTABLE = "?"
CUT = " ..."
MOST_DIGITS = 1e7  # from here on numbers are written with an exponent


def printable(text: object, most: int = LONGEST) -> str:
    """One line of at most `most` characters, without any that a terminal does not print.

    Line breaks, and the blanks around them, become one blank; other white space does too, and what is left that
    `str.isprintable` denies (control characters, marks of direction, zero-width characters, lone surrogates) `?`.
    """
    whole = _text(text)
    kept = whole[: 2 * most]
    line = " ".join(part for part in map(str.strip, kept.splitlines()) if part)
    line = "".join(map(_letter, line))
    return line if len(line) <= most and len(kept) == len(whole) else (line[: most - len(CUT)] + CUT).strip()


def _text(value: object) -> str:
    # Of an enumeration whose members are texts, the text and not the member's name.
    return str.__str__(value) if isinstance(value, str) else str(value)


def _letter(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter.isspace() else UNPRINTABLE


def printable_lines(text: str) -> str:
    """A text of our own making, whose line breaks and blanks stay, without characters that are not printable."""
    return "\n".join("".join(map(_letter, line)) if not line.isprintable() else line for line in text.split("\n"))


def printable_all(value: T, most: int = LONGEST) -> T:
    """The same value with every text in it printable: texts, and keys, in lists, dictionaries and dataclasses."""
    changed: Any = value
    if isinstance(value, str):
        changed = value if len(value) <= most and value.isprintable() else printable(value, most)
    elif isinstance(value, dict):
        changed = {printable_all(key, most): printable_all(entry, most) for key, entry in value.items()}
    elif isinstance(value, list | tuple | set):
        changed = type(value)(printable_all(entry, most) for entry in value)
    elif is_dataclass(value) and not isinstance(value, type):
        changed = replace(value, **{f.name: printable_all(getattr(value, f.name), most) for f in fields(value)})
    return changed


def is_label(value: Any) -> bool:
    """Is it a text that can stand for a metric or the like: printable, not empty, at most 100 characters?"""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()


def shown(value: Any) -> str:
    """A value of any type that a site sent, in at most 100 characters of one line."""
    if isinstance(value, str):
        return printable(value, LONGEST_NAME)
    if isinstance(value, bool) or not isinstance(value, Real):
        return printable(reprlib.repr(value), LONGEST_NAME)
    try:
        return f"{float(value):.8g}"
    except OverflowError:
        return "a number beyond float64"


def decimals(value: float, digits: int, sign: str = "") -> str:
    """`0.8500` for 4 digits; with an exponent if it would take more than 7 digits before the point."""
    return f"{value:{sign}.{digits}{'f' if abs(value) < MOST_DIGITS else 'e'}}"
