# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a user would change in a job, for a form or a table: form.json, and all that the job's JSON and classes say.

A job's form.json holds what the code does not: which settings, their order, labels and bounds. Defaults are those of
the job's JSON or of the constructor, and the help is that of the class.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

from bundle.arguments import UNKNOWN, Component, accepted_types
from bundle.jobs import JOBS, Job, read_job, read_json
from bundle.settings import find
from custom.errors import BundleError

FILE_NAME = "form.json"
GIVEN = {"key", "label", "minimum", "maximum", "choices", "help"}
KINDS = {bool: "bool", float: "float", int: "int", str: "text"}  # a float may be a whole number: it is asked first
MAX_TEXT = 500
MAX_INT = 2**53 - 1  # beyond that a browser does not tell whole numbers apart
SECTION = re.compile(r"^Args:\n((?: .*\n?)+)", re.MULTILINE)
ARGUMENT = re.compile(r"    (?P<names>\w+(?:, \w+)*): (?P<text>.*)")
MARKUP = re.compile(r"\[([^]]*)\]\([^)]*\)|`([^`]*)`|\*(\w[^*]*)\*")  # links, code, emphasis


@dataclass(frozen=True)
class Field:
    """One setting.

    Attributes:
        key: as `--set` takes it.
        label: a few words.
        kind: `int`, `float`, `bool`, `text` or `choice`.
        default: what the job has where nothing is set; None only if `optional`.
        minimum: the smallest value; None if there is none.
        maximum: the largest value; None if there is none.
        choices: of `choice`.
        help: one or two sentences.
        optional: may it be None, which means what the help says?
    """

    key: str
    label: str
    kind: str
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    help: str = ""
    optional: bool = False

    @property
    def range(self) -> str:
        """What `checked` takes, in words."""
        low, high = (None if bound is None else f"{bound:g}" for bound in (self.minimum, self.maximum))
        if self.kind in ("bool", "choice"):
            names = [str(choice) for choice in self.choices] or ["true", "false"]
            text = " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
        elif self.kind == "text":
            text = "text"
        elif low and high:
            text = f"{low} to {high}"
        else:
            text = f"{low} or more" if low else f"{high} or less" if high else "a number"
        return f"{text}, or nothing" if self.optional else text

    def checked(self, value: Any) -> Any:
        """`value` as it is to be sent: a form's 5.0 is the 5 of an `int`.

        Raises:
            BundleError: it is of another kind, or out of range.
        """
        if self.kind == "int" and isinstance(value, float) and value.is_integer():
            value = int(value)
        if not self._takes(value):
            whole = "a whole number, " if self.kind == "int" else ""
            raise BundleError(code="setting-value", key=self.key, expected=whole + self.range, got=_shown(value))
        return value

    def _takes(self, value: Any) -> bool:
        if value is None:
            return self.optional
        if self.kind == "bool":
            return isinstance(value, bool)
        if self.kind == "choice":
            return value in self.choices
        if self.kind == "text":
            return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()
        if isinstance(value, bool) or not isinstance(value, int if self.kind == "int" else int | float):
            return False
        largest = MAX_INT if self.kind == "int" else sys.float_info.max  # and not infinity, nor NaN
        low = -largest if self.minimum is None else self.minimum
        high = largest if self.maximum is None else self.maximum
        return low <= value <= high


@dataclass(frozen=True)
class JobForm:
    """A job's settings, in the order in which to show them.

    Attributes:
        name: of the job's folder.
        title: the heading of its README.
        description: the first paragraph of that, without markup.
        fields: empty if the job has no form.json.
    """

    name: str
    title: str
    description: str
    fields: tuple[Field, ...]

    def field(self, key: str) -> Field | None:
        """The setting with that key, if there is one."""
        return next((field for field in self.fields if field.key == key), None)


def names() -> list[str]:
    """The jobs of this bundle."""
    return sorted(path.parent.name for path in JOBS.glob("*/meta.json"))


def read_form(name_or_path: str) -> JobForm:
    """The form of a job. Imports the classes of the components that are in it.

    Raises:
        BundleError: there is no such job, or its form.json does not fit it.
    """
    job = read_job(name_or_path)
    title, description = _read_me(job)
    path = job.folder / FILE_NAME
    entries = read_json(path).get("settings") if path.is_file() else []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BundleError(
            code="job-malformed", key=f"{path} settings", expected="a list of objects", got=_shown(entries)
        )
    return JobForm(job.folder.name, title, description, tuple(_field(job, entry) for entry in entries))


def _field(job: Job, entry: Mapping[str, Any]) -> Field:
    where = f"{job.folder / FILE_NAME} {entry.get('key', '')}"
    if not {"key", "label"} <= entry.keys() <= GIVEN:
        raise BundleError(
            code="job-malformed",
            key=where,
            expected=f"key, label and some of {', '.join(sorted(GIVEN))}",
            got=list(entry),
        )
    component, argument = find(job.configs, entry["key"])[0]
    parameter = component.parameters().get(argument)
    default = component.arguments.get(argument, None if parameter is None else parameter.default)
    accepted = accepted_types(parameter)
    accepted = (type(default),) if accepted is UNKNOWN else accepted
    choices = tuple(entry.get("choices", ()))
    kind = "choice" if choices else next((name for kind, name in KINDS.items() if kind in accepted), "")
    text = _sentence(entry.get("help") or argument_help(component, argument))
    if not kind or not text:
        missing = "no help" if kind else f"values that no form can hold ({argument} of {component.path})"
        raise BundleError(f"the setting has {missing}", code="job-malformed", key=where)
    bounds = (entry.get("minimum"), entry.get("maximum"))
    return Field(entry["key"], entry["label"], kind, default, *bounds, choices, text, NoneType in accepted)


def argument_help(component: Component, argument: str) -> str:
    """What the docstring of the class says under `Args:`; empty if it says nothing."""
    section = SECTION.search(inspect.getdoc(component.load()) or "")
    found: list[str] = []
    for line in section[1].splitlines() if section else []:
        entry = ARGUMENT.fullmatch(line)
        if found and entry:
            break
        if found:
            found.append(line.strip())
        elif entry and argument in entry["names"].split(", "):
            found.append(entry["text"])
    return " ".join(found)


def _sentence(markdown: str) -> str:
    """Plain text; begins with a capital unless it is with a name of the code."""
    return _plain(markdown[:1].upper() + markdown[1:])


def _read_me(job: Job) -> tuple[str, str]:
    """Heading and first paragraph."""
    path = job.folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    heading, _, rest = text.partition("\n")
    paragraph = rest.strip().partition("\n\n")[0]
    return _plain(heading.lstrip("# ")) or job.name, _plain(" ".join(paragraph.split()))


def _plain(markdown: str) -> str:
    return MARKUP.sub(lambda match: next(filter(None, match.groups()), ""), markdown)


def _shown(value: Any) -> str:
    """A user's value in a message: not all of a very long one."""
    return f"{value!r:.80}"
