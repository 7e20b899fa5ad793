# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Pieces that pages are made of. All text is escaped by the browser: it is text, and never HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from dashboard.system import Snapshot
from dashboard.words import Mark

E = TypeVar("E", bound=Element)
ROWS = 25  # of a table, until it has pages
LONG_NOTE = 40  # letters; then a fact takes two columns
TOGGLE = "no-caps unelevated toggle-color=toggled toggle-text-color=toggled"  # style.css colours it; Quasar does not


class Text(TextElement):
    """Text in an element of any tag."""

    def __init__(self, tag: str, text: str = "", classes: str = "") -> None:
        super().__init__(tag=tag, text=text)
        self.classes(classes)


def attributes(element: E, **values: Any) -> E:
    """Sets attributes; unlike `.props("...")` it never parses a value. `data_testid` becomes `data-testid`."""
    for name, value in values.items():
        element.props[name.rstrip("_").replace("_", "-")] = value
    return element


def box(classes: str, tag: str = "div") -> Element:
    """A container."""
    return ui.element(tag).classes(classes)


def icon(name: str, classes: str = "") -> Element:
    """A picture that says nothing of its own: what it means stands beside it."""
    return attributes(ui.icon(name).classes(classes), aria_hidden="true")


def link(text: str, target: str, classes: str = "", name: str = "") -> Element:
    """A link within the dashboard."""
    element = attributes(Text("a", text, f"link {classes}"), href=target)
    return attributes(element, data_testid=name) if name else element


def chip(mark: Mark, name: str = "") -> Element:
    """A state, as icon, word and colour."""
    with box(f"chip {mark.kind}", "span") as element:
        icon(mark.icon)
        Text("span", mark.word)
    return attributes(element, data_testid=name) if name else element


def button(text: str, on_click: Any = None, symbol: str = "", kind: str = "", name: str = "") -> ui.button:
    """A button; `kind` is `primary`, `danger` or nothing."""
    element = ui.button(text, on_click=on_click, icon=symbol or None, color=None).classes(f"button {kind}")
    element.props("no-caps unelevated")
    return attributes(element, data_testid=name) if name else element


def link_button(text: str, target: str, symbol: str = "", kind: str = "", name: str = "") -> Element:
    """A link that looks like a button."""
    with attributes(box(f"button link-button {kind}", "a"), href=target) as element:
        if symbol:
            icon(symbol)
        Text("span", text)
    return attributes(element, data_testid=name) if name else element


def card(title: str = "", classes: str = "") -> Element:
    """A surface with a heading."""
    element = box(f"card {classes}", "section")
    if title:
        with element:
            Text("h2", title)
    return element


def notice(kind: str, title: str, lines: Sequence[str] = (), name: str = "") -> Element:
    """A box that is to be seen: `bad`, `warn` or `info`."""
    symbols = {"bad": "error", "warn": "warning", "info": "info"}
    with box(f"notice {kind}") as element:
        icon(symbols[kind])
        with box("notice-text"):
            Text("strong", title)
            for line in lines:
                Text("p", line)
    attributes(element, role="alert" if kind == "bad" else "status")
    return attributes(element, data_testid=name) if name else element


def facts(pairs: Sequence[tuple[str, str, str]], name: str = "facts") -> Element:
    """Label, value and a note each."""
    with attributes(box("facts", "dl"), data_testid=name) as element:
        for label, value, note in pairs:
            with box("fact wide" if len(note) > LONG_NOTE else "fact"):
                Text("dt", label)
                with box("", "dd"):
                    attributes(Text("span", value), data_testid=f"fact-{label.lower().replace(' ', '-')}")
                    if note:
                        Text("small", note)
    return element


def empty(symbol: str, title: str, text: str, name: str = "empty") -> Element:
    """What to say where there is nothing yet."""
    with attributes(box("empty"), data_testid=name) as element:
        icon(symbol)
        Text("strong", title)
        Text("p", text)
    return element


def loading(text: str) -> Element:
    """A sign that something is on its way."""
    with attributes(box("loading"), role="status") as element:
        ui.spinner(size="24px", color=None)
        Text("span", text)
    return element


def not_read(snapshot: Snapshot) -> None:
    """Before the first reading: that it is on its way, or that there is none, which the banner explains."""
    if snapshot.problem:
        empty("cloud_off", "Nothing to show yet", "As soon as FLARE answers, it appears here by itself.", "not-read")
    else:
        loading("Asking FLARE ...")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], name: str = "", texts: int = 1) -> ui.table:
    """A table of text: the first `texts` columns to the left, the others, numbers, to the right."""
    columns = [
        {"name": f"c{index}", "field": f"c{index}", "label": label, "align": "left" if index < texts else "right"}
        for index, label in enumerate(header)
    ]
    element = ui.table(columns=columns, rows=[], row_key="id", pagination=ROWS if len(rows) > ROWS else None)
    element.classes("data").props("flat dense")
    fill(element, rows)
    return attributes(element, data_testid=name) if name else element


def fill(element: ui.table, rows: Sequence[Sequence[str]]) -> None:
    """Other rows for a table of the same columns."""
    element.rows = [{"id": number, **{f"c{i}": cell for i, cell in enumerate(row)}} for number, row in enumerate(rows)]


def chart(options: dict[str, Any], classes: str = "", name: str = "") -> ui.echart:
    """A chart as SVG, whose text follows the theme."""
    element = ui.echart(options, renderer="svg").classes(f"chart {classes}")
    return attributes(element, data_testid=name) if name else element
