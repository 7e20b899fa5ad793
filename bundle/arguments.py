# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What `--set key=value` can change in a job: every argument in its JSON, and every other one our classes take."""

from __future__ import annotations

import importlib
import inspect
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom.errors import BundleError

OWN = ("custom.", "controllers.")
KNOWN = (*OWN, "nvflare.", "torch.")
UNKNOWN = object()  # no type is known: anything may be set


@dataclass(frozen=True)
class Component:
    """One class with arguments in a job's JSON.

    Attributes:
        side: `server` or `client`, to tell two of one name apart.
        scopes: the ids, tasks or names that may stand before the dot of a key.
        path: the class.
        arguments: the `args` object itself: what is written there changes the job.
        id: what other components call it; empty if it has none.
        app: the folder of its app, where the job has several (`deploy_map`); else empty.
    """

    side: str
    scopes: tuple[str, ...]
    path: str
    arguments: dict[str, Any]
    id: str = ""
    app: str = ""

    def must_agree(self, other: Component, argument: str) -> bool:
        """Is what is set here to be set there too?

        So it is if they are the same component, one at the server and one at the sites, or the same of two apps, or if
        both classes name the argument in their `agrees`.
        """
        same = (self.id, self.path) == (other.id, other.path)
        twins = same and self.id != "" and self.side != other.side and self.path.startswith(OWN)
        copies = self.app != other.app and (self.side, self.scopes) == (other.side, other.scopes)
        return twins or copies or (other is not self and self._agrees_on(argument) and other._agrees_on(argument))

    def _agrees_on(self, argument: str) -> bool:
        return argument in getattr(self.load(), "agrees", ())

    def keys(self, argument: str) -> set[str]:
        """All keys that name `argument` of this component."""
        scoped = {f"{scope}.{argument}" for scope in self.scopes}
        named = {argument} | scoped | {f"{self.side}.{key}" for key in scoped}
        return named | {f"{app}.{key}" for app in names_of_app(self.app) for key in named}

    def aliases(self) -> dict[str, str]:
        """Other keys that the class answers to, each with the argument it means."""
        return dict(getattr(self.load(), "also_called", {})) if self.path.startswith(OWN) else {}

    def shortest_key(self, argument: str) -> str:
        """The key to show among candidates."""
        return f"{self.scopes[0]}.{argument}"

    def load(self) -> Any:
        """The class, or None if it cannot be imported here or is a stranger's, whose code must not run here."""
        if not self.path.startswith(KNOWN):
            return None
        module_name, _, class_name = self.path.rpartition(".")
        try:
            return getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError, ValueError):
            return None

    def parameters(self) -> dict[str, inspect.Parameter]:
        """The constructor's parameters; empty if the class cannot be imported here."""
        try:
            signature = inspect.signature(self.load(), eval_str=True)
        except (NameError, TypeError, ValueError):
            return {}
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return {name: parameter for name, parameter in signature.parameters.items() if parameter.kind in named}


def components(configs: dict[Path, dict[str, Any]]) -> list[Component]:
    """Every component of the job, nested ones included, in the order of the files.

    Raises:
        BundleError: the `args` of one are no JSON object.
    """
    found: list[Component] = []
    for path, config in configs.items():
        for scopes, entry in _entries(config):
            found.extend(with_nested(_side(path), scopes, entry, _app(path, configs)))
    return found


def names_of_app(app: str) -> set[str]:
    """What may stand for it before the first dot of a key: `app_site-1` and `site-1`; nothing for the only app."""
    return {app, app.removeprefix("app_")} if app else set()


def _app(path: Path, configs: dict[Path, dict[str, Any]]) -> str:
    """The folder of the app, if the job has several."""
    apps = {other.parent.parent for other in configs}
    return path.parts[0] if len(apps) > 1 else ""


def entries_with_id(configs: dict[Path, dict[str, Any]]) -> Iterator[tuple[set[str], dict[str, Any]]]:
    """The keys and the JSON of every workflow and component that others call by its id."""
    for path, config in configs.items():
        for entry in (*config.get("workflows", []), *config.get("components", [])):
            if entry.get("id"):
                keys = {entry["id"], f"{_side(path)}.{entry['id']}"}
                yield keys | {f"{app}.{key}" for app in names_of_app(_app(path, configs)) for key in keys}, entry


def is_component(value: Any) -> bool:
    """Does FLARE build an instance of a class from this JSON value?"""
    return isinstance(value, dict) and "path" in value and value.get("config_type", "component") == "component"


def _side(path: Path) -> str:
    return path.stem.removeprefix("config_fed_")


def _entries(config: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for kind in ("workflows", "components"):
        for entry in config.get(kind, []):
            yield (str(entry.get("id", "")),), entry
    for binding in config.get("executors", []):
        yield tuple(binding.get("tasks", [])), binding.get("executor", {})
    for kind in ("task_data_filters", "task_result_filters"):
        for binding in config.get(kind, []):
            for entry in binding.get("filters", []):
                yield (_module(entry), *binding.get("tasks", [])), entry


def _module(entry: dict[str, Any]) -> str:
    return str(entry.get("path", "")).rpartition(".")[0].rpartition(".")[2]


def with_nested(side: str, scopes: tuple[str, ...], entry: dict[str, Any], app: str = "") -> Iterator[Component]:
    """The component of a JSON value and those in its `args`; none if it has no path."""
    if "path" not in entry:
        return
    arguments = entry.setdefault("args", {})
    if not isinstance(arguments, dict):
        key = f"{scopes[0] if scopes else _module(entry)} args"
        raise BundleError(code="job-malformed", key=key, expected="a JSON object", got=json.dumps(arguments))
    yield Component(side, scopes or (_module(entry),), str(entry["path"]), arguments, str(entry.get("id", "")), app)
    for name, value in arguments.items():
        if is_component(value):
            yield from with_nested(side, (name, *(f"{scope}.{name}" for scope in scopes)), value, app)


def accepted_types(parameter: inspect.Parameter | None) -> Any:
    """What a parameter takes, as a tuple of types, from its annotation or else its default; UNKNOWN if neither says."""
    if parameter is None:
        return UNKNOWN
    if parameter.annotation is not inspect.Parameter.empty:
        return _flatten(parameter.annotation)
    if parameter.default is not inspect.Parameter.empty and parameter.default is not None:
        return (type(parameter.default),)
    return UNKNOWN


def _flatten(annotation: Any) -> Any:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [_flatten(part) for part in typing.get_args(annotation)]
        return UNKNOWN if UNKNOWN in parts else tuple(kind for part in parts for kind in part)
    if origin is typing.Literal:
        return tuple({type(value) for value in typing.get_args(annotation)})
    kind = origin or annotation
    if kind in (bool, int, float, str, list, dict, tuple, types.NoneType):
        return (kind,)
    json_alike = {"Sequence": (list,), "Iterable": (list,), "Mapping": (dict,)}
    return json_alike.get(getattr(kind, "__name__", ""), UNKNOWN)


def fits(value: Any, accepted: Any) -> bool:
    """May JSON `value` stand for an argument of the types `accepted`? A whole number may stand for a float."""
    if accepted is UNKNOWN:
        return True
    kinds = set(accepted)
    if float in kinds:
        kinds.add(int)
    if tuple in kinds:
        kinds.add(list)
    return type(value) in kinds
