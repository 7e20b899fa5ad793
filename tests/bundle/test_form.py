# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""form.json of every job fits the job: keys are those of --set, and no range contradicts what export checks."""

from __future__ import annotations

import copy
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bundle import arguments, settings
from bundle.arguments import OWN, Component
from bundle.classes import check_settings
from bundle.form import Field, argument_help, names, read_form
from bundle.form_table import to_json, to_text
from bundle.jobs import Job, read_job
from custom.errors import BundleError
from tests.bundle.conftest import Cli

PROBES = (-1_000_000, -1, -0.5, 0, 0.5, 1, 1.5, 2, 7, 100, 1_000_000)
FIELDS = [(name, field.key) for name in names() for field in read_form(name).fields]


@cache
def job(name: str) -> Job:
    return read_job(name)


@cache
def field_of(name: str, key: str) -> Field:
    field = read_form(name).field(key)
    assert field
    return field


def accepts(name: str, key: str, value: Any) -> bool:
    """Would `bundle export NAME OUT --set key=value`?"""
    configs = copy.deepcopy(job(name).configs)
    try:
        settings.apply(configs, {key: value})
        check_settings(Job(job(name).folder, job(name).meta, configs), job(name).folder)
    except BundleError:
        return False
    return True


def takes(field: Field, value: Any) -> bool:
    try:
        return field.checked(value) == value
    except BundleError:
        return False


def test_every_job_has_a_form() -> None:
    assert {name for name, _ in FIELDS} == set(names()) >= {"hello-pt", "mnist"}


@pytest.mark.parametrize(("name", "key"), FIELDS)
def test_a_default_is_in_its_range_and_is_what_the_job_has(name: str, key: str) -> None:
    field = field_of(name, key)
    assert takes(field, field.default)
    assert accepts(name, key, field.default)
    component, argument = settings.find(job(name).configs, key)[0]
    assert component.arguments.get(argument, field.default) == field.default
    assert field.help
    assert field.label[0].isupper()


@pytest.mark.parametrize(("name", "key"), FIELDS)
def test_what_a_form_takes_export_accepts(name: str, key: str) -> None:
    field = field_of(name, key)
    bounds = [bound for bound in (field.minimum, field.maximum) if bound is not None]
    values = [True, False, None, *field.choices, *bounds, *PROBES]
    taken = [value for value in values if takes(field, value)]
    assert [value for value in taken if not accepts(name, key, value)] == []
    assert len(taken) > 1 or field.kind == "text"


@pytest.mark.parametrize(("name", "key"), FIELDS)
def test_what_lies_outside_of_a_form_our_own_classes_refuse(name: str, key: str) -> None:
    """The next whole number outside: 0.001 stands for "above 0". FLARE's own classes take rounds that make no sense."""
    component, _ = settings.find(job(name).configs, key)[0]
    field = field_of(name, key)
    outside: list[Any] = ["no such choice"] if field.kind == "choice" else []
    if field.minimum is not None:
        outside.append(math.ceil(field.minimum) - 1)
    if field.maximum is not None:
        outside.append(math.floor(field.maximum) + 1)
    assert not any(takes(field, value) for value in outside)
    if component.path.startswith(OWN):
        assert [value for value in outside if accepts(name, key, value)] == []


def make_form(folder: Path, *entries: dict[str, Any]) -> None:
    (folder / "form.json").write_text(json.dumps({"settings": list(entries)}))


def test_defaults_are_those_of_the_json_and_else_of_the_constructor(job: Path) -> None:
    """`a.Rounds` cannot be imported here: then the JSON says what kind of value it is."""
    make_form(
        job,
        {"key": "num_rounds", "label": "Rounds", "minimum": 1, "help": "of training"},
        {"key": "weight_method", "label": "Start", "choices": ["first", "random"]},
        {"key": "weights_client_name", "label": "Site"},
    )
    (job / "README.md").write_text("# A small job\n\nWith *few* rounds\nof [a kind](x.md), `here`.\n\nMore.\n")
    form = read_form(str(job))
    assert (form.title, form.description) == ("A small job", "With few rounds of a kind, here.")
    rounds, method, site = form.fields
    assert rounds == Field("num_rounds", "Rounds", "int", 5, 1, None, (), "Of training")
    assert (method.kind, method.default, method.optional) == ("choice", "first", False)
    assert method.help.startswith("first reply to arrive; that of one client;")  # `first` is a name of the code
    assert (site.kind, site.default, site.optional) == ("text", None, True)


def test_a_job_without_a_form_has_no_fields(job: Path) -> None:
    form = read_form(str(job))
    assert (form.name, form.title, form.description, form.fields) == ("small", "small", "", ())
    assert "any argument" in to_text(form)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"key": "num_round", "label": "Rounds"}, r"did you mean num_rounds\?"),
        ({"key": "timeout", "label": "Time"}, "2 components of the job have it"),
        ({"key": "num_rounds"}, r"form\.json num_rounds: expected key, label"),
        ({"key": "num_rounds", "label": "Rounds", "min": 1}, r"form\.json num_rounds: expected key, label"),
        ({"key": "num_rounds", "label": "Rounds"}, "has no help"),
        ({"key": "split", "label": "Split", "help": "x"}, "values that no form can hold"),
    ],
)
def test_a_form_that_does_not_fit_its_job_is_refused(job: Path, entry: dict[str, Any], message: str) -> None:
    make_form(job, entry)
    with pytest.raises(BundleError, match=message):
        read_form(str(job))


class Documented:
    """A class.

    Args:
        one: the first,
            on two lines.
        two, three: both of them.

    Raises:
        four: nothing.
    """


@pytest.mark.parametrize(
    ("name", "text"), [("one", "the first, on two lines."), ("three", "both of them."), ("four", "")]
)
def test_help_is_taken_from_the_docstring(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "KNOWN", ("tests.",))
    component = Component("client", ("x",), f"{__name__}.Documented", {})
    assert argument_help(component, name) == text


WHOLE = Field("n", "N", "int", 3, 1, 9)
SHARE = Field("s", "S", "float", 0.1, 0.001, 1)


@pytest.mark.parametrize(
    ("field", "value", "result"),
    [
        (WHOLE, 5, 5), (WHOLE, 5.0, 5), (WHOLE, 5.5, None), (WHOLE, True, None), (WHOLE, "5", None), (WHOLE, 0, None),
        (WHOLE, None, None), (WHOLE, float("nan"), None), (SHARE, 1, 1), (SHARE, 0, None), (SHARE, float("inf"), None),
        (Field("n", "N", "int", 3), 2**60, None), (Field("f", "F", "float", 3), float("inf"), None),
        (Field("b", "B", "bool", False), 1, None), (Field("b", "B", "bool", False), True, True),
        (Field("c", "C", "choice", "a", choices=("a", "b")), "b", "b"),
        (Field("c", "C", "choice", "a", choices=("a", "b")), ["a"], None),
        (Field("t", "T", "text", ""), "a b", "a b"), (Field("t", "T", "text", ""), "a\nb", None),
        (Field("t", "T", "text", ""), "a\0", None), (Field("t", "T", "text", ""), "a" * 600, None),
    ],
)  # fmt: skip
def test_values_are_taken_as_their_kind_or_refused(field: Field, value: Any, result: Any) -> None:
    if result is None:
        with pytest.raises(BundleError, match=rf"^{field.key}: expected ") as caught:
            field.checked(value)
        assert caught.value.key == field.key
    else:
        assert field.checked(value) == result
        assert type(field.checked(value)) is type(result)


def test_nothing_is_taken_where_a_setting_is_optional() -> None:
    assert Field("n", "N", "int", None, 1, optional=True).checked(None) is None


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (WHOLE, "1 to 9"), (Field("n", "N", "int", 3, 1, optional=True), "1 or more, or nothing"),
        (Field("n", "N", "int", 3, maximum=4), "4 or less"), (Field("n", "N", "float", 3), "a number"),
        (Field("b", "B", "bool", True), "true or false"), (Field("t", "T", "text", ""), "text"),
        (Field("c", "C", "choice", "a", choices=("a", "b", "c")), "a, b or c"),
    ],
)  # fmt: skip
def test_a_range_in_words(field: Field, text: str) -> None:
    assert field.range == text


@pytest.mark.parametrize("name", names())
def test_the_table_is_readable_on_100_columns(name: str) -> None:
    form = read_form(name)
    lines = to_text(form).splitlines()
    assert max(map(len, lines)) <= 100
    first_words = [line.split(" ")[0] for line in lines]
    assert all(field.key in first_words for field in form.fields)


def test_json_has_what_the_forms_have() -> None:
    form = read_form("mnist")
    (content,) = json.loads(to_json([form]))
    assert {"job", "title", "description", "fields"} == content.keys()
    assert content["fields"][0]["key"] == form.fields[0].key


def test_the_command(cli: Cli) -> None:
    done = cli("settings", "mnist")
    assert (done.returncode, done.stderr) == (0, "")
    assert "num_rounds" in done.stdout
    assert "hello-pt" not in done.stdout
    done = cli("settings", "mnits")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean mnist?" in done.stderr
