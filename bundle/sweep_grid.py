# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`--grid key=v1,v2`: the values of each key, and the points they make."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bundle import settings
from custom.errors import BundleError

LONGEST_NAME = 100  # a file system has 255, and FLARE's own paths come below
UNUSUAL = re.compile(r"[^A-Za-z0-9._+=,-]+")
QUOTED = re.compile(r'["\[\]{}]')
JSON_REMEDY = (
    "write all of them as JSON where one is a list or holds a comma: --grid 'key=[1, 2],[3]' or 'key=\"a,b\",\"c\"'"
)


@dataclass(frozen=True)
class Point:
    """One run of the sweep.

    Attributes:
        settings: the value of each key of the grid.
    """

    settings: dict[str, Any]

    @property
    def assignments(self) -> list[str]:
        """As `--set` takes them; JSON, so that text stays text."""
        return [f"{key}={json.dumps(value)}" for key, value in self.settings.items()]

    @property
    def label(self) -> str:
        """The settings as a person would type them."""
        return ", ".join(f"{key}={value_text(value)}" for key, value in self.settings.items())

    @property
    def name(self) -> str:
        """Name of its folder: the settings by key; a digest where letters had to go, or a text reads as a number."""
        plain = ",".join(f"{key}={value_text(value)}" for key, value in sorted(self.settings.items()))
        name = UNUSUAL.sub("-", plain)[:LONGEST_NAME]
        if name == plain and not any(map(_looks_else, self.settings.values())):
            return name
        whole = json.dumps(self.settings, sort_keys=True)
        return f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _looks_else(value: Any) -> bool:
    """Is it a text that would be a number, or true, if it were typed?"""
    try:
        return isinstance(value, str) and not isinstance(json.loads(value), str)
    except ValueError:
        return False


def value_text(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def points(grid: Sequence[str], fixed: dict[str, Any]) -> list[Point]:
    """Every combination of `["a=1,2", "b=x,y"]`; the last key changes fastest.

    Args:
        grid: `key=v1,v2` each. The values are JSON (`0.1,true,"a,b",[1, 2]`) or, if that cannot be read as JSON, split
            at the commas, each as in `--set`.
        fixed: what `--set` says.

    Raises:
        BundleError: there is no grid, a key has no value or comes twice, or a value is empty or comes twice.
    """
    if not grid:
        raise BundleError(
            "there is nothing to sweep",
            code="setting-syntax",
            key="--grid",
            remedy="give at least one --grid key=v1,v2",
        )
    values: dict[str, list[Any]] = {}
    for text in grid:
        key, equals, listed = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise BundleError(code="setting-syntax", key=f"--grid {text}", expected="key=v1,v2", got=repr(text))
        if key in values:
            raise BundleError(
                "is given twice", code="setting-syntax", key=f"--grid {key}", remedy="list all its values in one --grid"
            )
        if key in fixed:
            raise BundleError("is in --set and in --grid", code="setting-syntax", key=key, remedy="keep one of them")
        values[key] = _values(key, listed)
    return [Point(dict(zip(values, chosen, strict=True))) for chosen in itertools.product(*values.values())]


def _values(key: str, text: str) -> list[Any]:
    found = settings.parse([f"{key}=[{text}]"])[key]
    if not isinstance(found, list):  # plain words among them
        if "," in text and QUOTED.search(text):
            raise BundleError(
                "mixes plain text and JSON", code="setting-syntax", key=f"--grid {key}={text}", remedy=JSON_REMEDY
            )
        found = [settings.parse([f"{key}={part.strip()}"])[key] for part in text.split(",")]
    if not found or "" in found:
        raise BundleError("has an empty value", code="setting-syntax", key=f"--grid {key}={text}", remedy=JSON_REMEDY)
    marks = [_mark(value) for value in found]
    for index, value in enumerate(found):
        if marks.index(marks[index]) < index:
            raise BundleError(
                f"has the value {value_text(value)} twice", code="setting-syntax", key=f"--grid {key}={text}"
            )
    return found


def _mark(value: Any) -> tuple[str, str]:
    """Equal for values that mean the same: 1 and 1.0 do, 1 and true do not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", repr(float(value))
    return type(value).__name__, json.dumps(value, sort_keys=True)
