# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`--set key=value`: finds the argument that a key names and changes it, or says why not."""

from __future__ import annotations

import difflib
import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.arguments import OWN, UNKNOWN, Component, accepted_types, components, fits
from custom.errors import BundleError

Match = tuple[Component, str]


def parse(settings: Sequence[str]) -> dict[str, Any]:
    """`["a=1", "b=text"]` as `{"a": 1, "b": "text"}`: JSON where it is JSON, else text.

    Raises:
        BundleError: one has no `=` or no key, or a key comes twice.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise BundleError(key=f"--set {setting}", expected="key=value", got=repr(setting))
        if key.strip() in values:
            raise BundleError("is set twice", key=f"--set {key.strip()}")
        try:
            values[key.strip()] = json.loads(text, parse_constant=str, parse_float=_finite)
        except ValueError:
            values[key.strip()] = text
    return values


def _finite(text: str) -> float | str:
    # What JSON cannot hold (1e999, and NaN above) stays text, which is refused where a number belongs.
    return float(text) if math.isfinite(float(text)) else text


def apply(configs: dict[Path, dict[str, Any]], values: dict[str, Any]) -> None:
    """Changes the arguments that the keys name, in place, after all keys and types were checked.

    Raises:
        BundleError: a key is unknown or ambiguous, or a value has the wrong type. Nothing is changed then.
    """
    parts = components(configs)
    changes = [(*match, value, key) for key, value in values.items() for match in _find(key, parts)]
    for component, argument, value, key in changes:
        _check_type(component, argument, value, key)
    for component, argument, value, _ in changes:
        component.arguments[argument] = value


def _find(key: str, parts: Sequence[Component]) -> list[Match]:
    """The argument that `key` names: of one component, or of several that must agree on it."""
    present = [(part, argument) for part in parts for argument in part.arguments]
    matches = [match for match in present if key in match[0].keys(match[1])]
    if not matches:
        possible = [(part, name) for part in parts if part.path.startswith(OWN) for name in part.parameters()]
        matches = [match for match in possible if key in match[0].keys(match[1])]
        if not matches:
            raise _unknown(key, present + possible)
    part, argument = matches[0]
    if len(matches) == 1:  # its twin may leave the argument to its default
        twins = [twin for twin in parts if part.must_agree(twin, argument) and key in twin.keys(argument)]
        return matches + [(twin, argument) for twin in twins if argument in twin.parameters()]
    if all(part.must_agree(other, argument) for other, _ in matches[1:]):
        return matches
    keys = _distinct_keys(matches)
    raise BundleError(
        f"{len(matches)} components of the job have it: {', '.join(keys)}",
        key=f"--set {key}",
        remedy="name the one you mean",
    )


def _distinct_keys(matches: Sequence[Match]) -> list[str]:
    keys = [part.shortest_key(argument) for part, argument in matches]
    return [key if keys.count(key) == 1 else f"{part.side}.{key}" for key, (part, _) in zip(keys, matches, strict=True)]


def _unknown(key: str, candidates: Sequence[Match]) -> BundleError:
    names = {name for part, argument in candidates for name in part.keys(argument)}
    close = difflib.get_close_matches(key, sorted(names), n=1, cutoff=0.6)
    owners: dict[str, list[str]] = {}
    for part, argument in candidates:
        owners.setdefault(part.scopes[0], []).append(argument)
    lists = (f"{owner}: {', '.join(dict.fromkeys(arguments))}" for owner, arguments in owners.items())
    lines = "\n".join(textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="    ") for text in lists)
    question = f" (did you mean {close[0]}?)" if close else ""
    return BundleError(f"the job has no such argument{question}; it has\n{lines}", key=f"--set {key}")


def _check_type(component: Component, argument: str, value: Any, key: str) -> None:
    present = component.arguments.get(argument)
    if present is not None and fits(value, (type(present),)):
        return
    # The JSON may hold 1 where 0.5 is as good, or null: the class knows best.
    accepted = accepted_types(component.parameters().get(argument))
    if accepted is UNKNOWN and present is not None:
        accepted = (type(present),)
    if not fits(value, accepted):
        names = " or ".join({"NoneType": "null"}.get(kind.__name__, kind.__name__) for kind in accepted)
        raise BundleError(key=f"--set {key}", expected=names, got=f"{type(value).__name__} {json.dumps(value)}")
