# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Keeps a page up to date: it looks for news, redraws only what has changed, and lets its clocks go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from dashboard.flare import Flare
from dashboard.pages.parts import Text, attributes, box
from dashboard.shared import Reports
from dashboard.system import Snapshot

State = Callable[[Snapshot], Hashable]
Draw = Callable[[Snapshot], None]
LOOK_S = 0.25  # for news
TICK_S = 1.0 - LOOK_S / 2  # of clocks, with or without news
BROKEN = "This part could not be shown; the dashboard's log says why."
log = logging.getLogger(__name__)


def reading_state(snapshot: Snapshot) -> str:
    """`waiting` or `down` before the first reading, then `read`: part of the state of what shows a reading."""
    return "read" if snapshot.taken else "down" if snapshot.problem else "waiting"


@dataclass
class _Part:
    container: Element
    state: State
    draw: Draw
    shown: Hashable = None
    drawn: bool = False


@dataclass
class _Hook:
    owner: Element
    call: Draw
    broken: bool = False


class Live:
    """The moving parts of one browser's page. Where one of them breaks, the others go on.

    Args:
        flare: whose snapshots are shown.
        reports: that may be shown, too.
    """

    def __init__(self, flare: Flare, reports: Reports) -> None:
        self._flare, self._reports = flare, reports
        self._seen, self._ticked = (0, 0), 0.0
        self._parts: list[_Part] = []
        self._clocks: list[tuple[TextElement, Callable[[float], str]]] = []
        self._hooks: list[_Hook] = []

    def part(self, state: State, draw: Draw, classes: str = "", tag: str = "div") -> Element:
        """A container that `draw` fills, and fills anew whenever `state` is another one."""
        part = _Part(box(f"part {classes}", tag), state, draw)
        self._parts.append(part)
        self._refresh(part, self._flare.snapshot())
        return part.container

    def clock(self, element: TextElement, text: Callable[[float], str]) -> None:
        """A text that changes as time goes by; gone with its element."""
        element.text = text(time.time())
        self._clocks.append((element, text))

    def always(self, hook: Draw) -> None:
        """Called once a second, when there are news, and now; gone with the element that it is called in."""
        hook(self._flare.snapshot())
        self._hooks.append(_Hook(ui.context.slot.parent, hook))

    def look(self) -> None:
        """Brings everything up to date if there are news, and once a second."""
        versions, now = (self._flare.snapshot().version, self._reports.version), time.monotonic()
        if versions != self._seen or now - self._ticked > TICK_S:
            self._seen, self._ticked = versions, now
            self._tick()

    def _tick(self) -> None:
        snapshot = self._flare.snapshot()
        self._parts = [part for part in self._parts if not part.container.is_deleted]
        for part in list(self._parts):  # drawing one may add others
            self._refresh(part, snapshot)
        self._hooks = [hook for hook in self._hooks if not hook.owner.is_deleted]
        for hook in list(self._hooks):
            self._call(hook, snapshot)
        now = time.time()
        self._clocks = [(element, text) for element, text in self._clocks if not element.is_deleted]
        for element, text in self._clocks:
            if (new := text(now)) != element.text:
                element.text = new

    def _call(self, hook: _Hook, snapshot: Snapshot) -> None:
        try:
            hook.call(snapshot)
        except Exception:
            if not hook.broken:  # once is enough
                log.exception("a part of a page could not be brought up to date")
            hook.broken = True
        else:
            hook.broken = False

    def _refresh(self, part: _Part, snapshot: Snapshot) -> None:
        try:
            state = part.state(snapshot)
        except Exception as error:
            state = repr(error)
            if state != part.shown:  # once is enough
                log.exception("whether a part of a page has changed could not be told")
        if part.drawn and state == part.shown:
            return
        part.shown, part.drawn = state, True
        part.container.clear()
        with part.container:
            try:
                part.draw(snapshot)
            except Exception:
                log.exception("a part of a page could not be drawn")
                part.container.clear()
                attributes(Text("p", BROKEN, "soft"), role="alert", data_testid="broken")
