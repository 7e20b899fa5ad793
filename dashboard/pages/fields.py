# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A job's settings as a form: made from the job's fields, checked as they are typed and once more before sending."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import events, ui
from nicegui.elements.mixins.validation_element import ValidationElement
from nicegui.elements.mixins.value_element import ValueElement

from custom.errors import BundleError
from dashboard.catalog import Field
from dashboard.pages.parts import Text, attributes, box

NO_VALUE = ""


class Settings:
    """The widgets of all fields.

    Args:
        fields: of the job's form.
        values: what to begin with, by key; the defaults for what is not there.
    """

    def __init__(self, fields: Sequence[Field], values: Mapping[str, Any]) -> None:
        self._fields = fields
        self._widgets: dict[str, ValueElement[Any]] = {}
        if not fields:
            Text("p", "This job has no settings to choose here.", "soft")
        with box("fields"):
            for field in fields:
                self._widgets[field.key] = _widget(field, values.get(field.key, field.default))

    def values(self) -> dict[str, Any]:
        """By key; only when there are no problems."""
        return {field.key: field.checked(_value(field, self._widgets[field.key].value)) for field in self._fields}

    def problems(self) -> list[str]:
        """A line for each field whose value it does not take; each is marked, too."""
        found = []
        for field in self._fields:
            widget = self._widgets[field.key]
            if isinstance(widget, ValidationElement):
                widget.validate()
            if problem := _problem(field, widget.value):
                found.append(f"{field.label}: {problem}")
        return found

    def show_problem(self, error: BundleError) -> None:
        """Marks the field that an error is about, if it is about one."""
        widget = self._widgets.get(error.key)
        if isinstance(widget, ValidationElement):
            widget.error = str(error).removeprefix(f"{error.key}: ")


class _Number(ui.number):
    """Takes what is no number as nothing; NiceGUI's own would break, with a traceback in the log."""

    def _event_args_to_value(self, e: events.GenericEventArguments) -> float | None:
        try:
            value = super()._event_args_to_value(e)
        except (TypeError, ValueError, OverflowError):
            return None
        return value if value is None or math.isfinite(value) else None


def _widget(field: Field, value: Any) -> ValueElement[Any]:
    def validation(given: Any) -> str | None:
        return _problem(field, given) or None

    widget: ValueElement[Any]
    if field.kind == "bool":
        with box("field switch-field"):
            widget = ui.switch(field.label, value=bool(value))
            Text("div", field.help, "help")
        return attributes(widget, data_testid=f"field-{field.key}")
    if field.kind == "choice":
        options = {choice: str(choice) for choice in field.choices}
        known = value if value in options else field.default
        widget = ui.select(options, label=field.label, value=known, validation=validation).props("options-dense")
    elif field.kind in ("int", "float"):
        widget = _Number(field.label, value=value, validation=validation, step=1 if field.kind == "int" else None)
        attributes(widget, inputmode="decimal")
        if field.kind == "float":
            attributes(widget, step="any")
    else:
        widget = ui.input(field.label, value=value or "", validation=validation)
    widget.props("outlined dense stack-label bottom-slots").classes("field")
    hint = field.help.removesuffix(".")
    if field.kind in ("int", "float"):
        hint += f" ({field.range})"
    return attributes(widget, hint=hint, data_testid=f"field-{field.key}")


def _value(field: Field, given: Any) -> Any:
    """What the browser gave, as the field takes it."""
    if given == NO_VALUE and field.optional:
        return None
    if field.kind == "float" and isinstance(given, int) and not isinstance(given, bool):
        return float(given)
    return given


def _problem(field: Field, given: Any) -> str:
    try:
        field.checked(_value(field, given))
    except BundleError as error:
        if given in (None, NO_VALUE):
            return f"give a value: {field.range}"
        return str(error).removeprefix(f"{field.key}: ").partition(", got ")[0]
    return ""
