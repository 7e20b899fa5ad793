# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The thread that asks the sites what they run and how their machines are; a dead one holds up nobody but it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from bundle.connection import Connection
from custom.errors import BundleError
from dashboard.clients import Said, ask

PERIOD_S = 12.0  # asking costs every site a little
logger = logging.getLogger(__name__)


class Asker:
    """Keeps `said` up to date.

    Args:
        connection: to ask through.
        told: called when there are new answers.
    """

    def __init__(self, connection: Connection, told: Callable[[], None]) -> None:
        self.said: Mapping[str, Said] = {}
        self._connection, self._told = connection, told
        self._about: tuple[Sequence[str], Sequence[str]] = ((), ())
        self._now, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._ask, name="flare-asker", daemon=True)

    def start(self) -> None:
        """Starts asking; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it; the thread may wait a few seconds longer for an answer."""
        self._stopped.set()
        self._now.set()

    def notice(self, sites: Sequence[str], running: Sequence[str]) -> None:
        """Says which sites are alive and which jobs run; when that changed, they are asked at once."""
        changed = self._about != (sites, running)
        self._about = (sites, running)
        if changed:
            self._now.set()

    def _ask(self) -> None:
        while not self._stopped.is_set():
            self._now.wait(PERIOD_S)
            self._now.clear()
            started = time.monotonic()
            try:
                self.said = {} if self._stopped.is_set() else ask(self._connection, self._about[0])
            except BundleError as error:  # they have no answer, or the user may not ask
                logger.debug("the sites were not asked: %s", error)
                self.said = {}
            self._told()
            self._stopped.wait(time.monotonic() - started)
