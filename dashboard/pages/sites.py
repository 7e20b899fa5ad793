# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Choosing the sites that train."""

from __future__ import annotations

from nicegui import ui

from dashboard.pages.live import Live
from dashboard.pages.parts import Text, attributes, box, chip, empty
from dashboard.system import Snapshot
from dashboard.words import connection


class Sites:
    """A box to tick for each site; those that are connected are ticked, a silent one cannot be.

    Args:
        live: of the page.
        wanted: those to tick; empty means all.
        least: how many the job waits for where none are named.
    """

    def __init__(self, live: Live, wanted: tuple[str, ...] = (), least: int = 1) -> None:
        self._wanted, self._least = wanted, least
        self._ticks: dict[str, bool] = {}  # what the user has said, whatever comes and goes
        self._connected: tuple[str, ...] = ()
        self._all = True
        live.part(self._state, self._draw)

    def chosen(self) -> tuple[str, ...]:
        """The names; empty where all that are connected train, and nothing is to be restricted."""
        ticked = self._ticked()
        everybody = self._all and len(ticked) == len(self._connected)
        return () if everybody and len(ticked) >= self._least else ticked

    def problem(self) -> str:
        """Why it cannot be launched so; empty if it can."""
        if not self._connected:
            return "Sites: none is connected"
        return "" if self._ticked() else "Sites: choose one or more"

    def _ticked(self) -> tuple[str, ...]:
        return tuple(name for name in self._connected if self._ticks.get(name, self._by_default(name)))

    def _by_default(self, name: str) -> bool:
        return not self._wanted or name in self._wanted

    def _state(self, snapshot: Snapshot) -> object:
        known = tuple((client.name, client.is_silent(snapshot.taken)) for client in snapshot.clients)
        return (known, bool(snapshot.problem))

    def _draw(self, snapshot: Snapshot) -> None:
        silent = {client.name: client.is_silent(snapshot.taken) for client in snapshot.clients}
        self._connected = tuple(name for name, is_silent in silent.items() if not is_silent)
        self._all = not any(silent.values())
        if not snapshot.clients:
            empty("lan", "No site is connected", "Start one, and it appears here.", "no-sites")
        with box("ticks"):
            for client in snapshot.clients:
                with box("tick"):
                    ticked = not silent[client.name] and self._ticks.get(client.name, self._by_default(client.name))
                    tick = ui.checkbox(client.name, value=ticked)
                    tick.on_value_change(lambda event, name=client.name: self._tick(name, event.value))
                    attributes(tick, data_testid=f"site-{client.name}").set_enabled(not silent[client.name])
                    if silent[client.name]:
                        chip(connection(client, snapshot))
        Text("p", "All that are connected, unless you choose.", "help")

    def _tick(self, name: str, value: bool) -> None:
        self._ticks[name] = value
