# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`--set key=value`: finds the argument, or the whole component, that a key names and changes it, or says why not."""

from __future__ import annotations

import copy
import difflib
import json
import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.arguments import (
    OWN,
    UNKNOWN,
    Component,
    accepted_types,
    components,
    entries_with_id,
    fits,
    is_component,
    with_nested,
)
from custom.errors import BundleError

Match = tuple[Component, str]
Configs = dict[Path, dict[str, Any]]
EMBEDDED = "embedded"  # a word of model_name_or_path, whatever lies here


def parse(settings: Sequence[str]) -> dict[str, Any]:
    """`["a=1", "b=text"]` as `{"a": 1, "b": "text"}`: JSON where it is JSON, else text.

    Raises:
        BundleError: one has no `=` or no key, or a key comes twice.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise BundleError(code="setting-syntax", key=f"--set {setting}", expected="key=value", got=repr(setting))
        if key.strip() in values:
            raise BundleError("is set twice", code="setting-syntax", key=f"--set {key.strip()}")
        try:
            values[key.strip()] = json.loads(text, parse_constant=str, parse_float=_finite)
        except ValueError:
            values[key.strip()] = text
    return values


def _finite(text: str) -> float | str:
    # What JSON cannot hold (1e999, and NaN above) stays text, which is refused where a number belongs.
    return float(text) if math.isfinite(float(text)) else text


def apply(configs: Configs, values: dict[str, Any]) -> None:
    """Changes what the keys name, in place, after all keys and types were checked.

    A value `{"path": ..., "args": {...}}` replaces the component, or workflow, whose id is the key, at the server and
    at the sites; any other value is that of an argument. A relative folder that lies here becomes absolute.

    Raises:
        BundleError: a key is unknown or ambiguous, or a value has the wrong type. Nothing is changed then.
    """
    _apply(copy.deepcopy(configs), values)
    _apply(configs, values)


def _apply(configs: Configs, values: dict[str, Any]) -> None:
    # The components first: another key may name an argument of the new class.
    replaced = {key for key, value in values.items() if is_component(value) and _replace(configs, key, value)}
    parts = components(configs)
    rest = {key: value for key, value in values.items() if key not in replaced}
    changes = [(*match, value, key) for key, value in rest.items() for match in _find(key, parts, value, configs)]
    for component, argument, value, key in changes:
        _check_type(component, argument, value, key)
    for component, argument, value, key in changes:
        component.arguments[argument] = _here(component, argument, value)
        if is_component(value):
            _inside_here(key, value)


def _replace(configs: Configs, key: str, value: dict[str, Any]) -> bool:
    """Puts `value` in the place of every component with the id `key`; is there one?"""
    entries = [entry for keys, entry in entries_with_id(configs) if key in keys]
    if entries and not value.keys() <= {"path", "args"}:
        raise BundleError(
            code="setting-value", key=f"--set {key}", expected='{"path": ..., "args": {...}}', got=json.dumps(value)
        )
    for entry in entries:
        new = {"id": entry["id"], **copy.deepcopy(value)}
        _inside_here(key, new)
        entry.clear()
        entry.update(new)
    return bool(entries)


def _inside_here(key: str, value: dict[str, Any]) -> None:
    for part in with_nested("", (f"--set {key}",), value):
        part.arguments.update({name: _here(part, name, inner) for name, inner in part.arguments.items()})


def _here(component: Component, argument: str, value: Any) -> Any:
    """The absolute path of a folder or file that lies here: FLARE's processes work in other folders.

    What begins with `./` can only mean here. Anything else that is not here may be a name on the Hub.
    """
    if not isinstance(value, str) or value in ("", EMBEDDED) or not _is_place(component, argument):
        return value
    here = value.startswith(("./", "../")) or (not value.startswith("~") and Path(value).exists())
    return os.path.abspath(value) if here else value


def _is_place(component: Component, argument: str) -> bool:
    """Is the argument a place on this machine? `personal_dir` is one in the site's workspace, as its default says."""
    if argument.endswith("_path"):
        return True
    if not argument.endswith(("_dir", "_file")):
        return False
    parameter = component.parameters().get(argument)
    return parameter is not None and str(parameter.default).startswith(("~", "/"))


def find(configs: Configs, key: str) -> list[Match]:
    """The argument that a key means: of one component, or of several that are changed together.

    Raises:
        BundleError: the key is unknown or ambiguous.
    """
    return _find(key, components(configs), None, configs)


def _find(key: str, parts: Sequence[Component], value: Any, configs: Configs) -> list[Match]:
    """The argument that `key` names: of one component, or of several that must agree on it."""
    if aliases := [(part, part.aliases()[key]) for part in parts if key in part.aliases()]:
        return aliases
    present = [(part, argument) for part in parts for argument in part.arguments]
    matches = [match for match in present if key in match[0].keys(match[1])]
    if not matches:
        possible = [(part, name) for part in parts if part.path.startswith(OWN) for name in part.parameters()]
        matches = [match for match in possible if key in match[0].keys(match[1])]
        if not matches:
            ids = [entry["id"] for _, entry in entries_with_id(configs)] if is_component(value) else []
            raise _unknown(key, present + possible, ids)
    part, argument = matches[0]
    if len(matches) == 1:  # its twin may leave the argument to its default
        twins = [twin for twin in parts if part.must_agree(twin, argument) and key in twin.keys(argument)]
        return matches + [(twin, argument) for twin in twins if argument in twin.parameters()]
    if all(part.must_agree(other, argument) for other, _ in matches[1:]):
        return matches
    keys = _distinct_keys(matches)
    raise BundleError(
        f"{len(matches)} components of the job have it: {', '.join(keys)}",
        code="setting-ambiguous",
        key=f"--set {key}",
        remedy="name the one you mean",
    )


def _distinct_keys(matches: Sequence[Match]) -> list[str]:
    keys = [part.shortest_key(argument) for part, argument in matches]
    sides = [
        key if keys.count(key) == 1 else f"{part.side}.{key}" for key, (part, _) in zip(keys, matches, strict=True)
    ]
    return list(dict.fromkeys(sides))  # a key without its app names the same component of all apps


def _unknown(key: str, candidates: Sequence[Match], ids: Sequence[str]) -> BundleError:
    names = {name for part, argument in candidates for name in part.keys(argument)} | set(ids)
    close = difflib.get_close_matches(key, sorted(names), n=1, cutoff=0.6)
    owners: dict[str, list[str]] = {}
    for part, argument in candidates:
        owners.setdefault(part.scopes[0], []).append(argument)
    if apps := sorted({part.app for part, _ in candidates if part.app}):
        owners["before any of these, to change one app alone"] = [f"{app}." for app in apps]
    lists = [f"{owner}: {', '.join(dict.fromkeys(arguments))}" for owner, arguments in owners.items()]
    if ids:
        lists.insert(0, f"components: {', '.join(dict.fromkeys(ids))}")
    lines = "\n".join(textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="    ") for text in lists)
    question = f" (did you mean {close[0]}?)" if close else ""
    what = "component or argument" if ids else "argument"
    return BundleError(
        f"the job has no such {what}{question}; it has\n{lines}", code="setting-unknown", key=f"--set {key}"
    )


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
        raise BundleError(
            code="setting-value", key=f"--set {key}", expected=names, got=f"{type(value).__name__} {json.dumps(value)}"
        )
