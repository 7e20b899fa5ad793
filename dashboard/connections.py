# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a visitor without a login may hold: connections, time, and memory; see `Lobby` and `Connection`.

A connection is a stranger's from the moment it is accepted, TLS handshake included, but for the time in which a request
with a login is worked on. A stranger has `REQUEST_S` to bring a request to its end, however slowly bytes come, and
`ANSWER_S` until the answer is out. There are `MOST_STRANGERS` of them; the one that has been idle longest goes, so that
people get in all the same.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

REQUEST_S = 30.0
ANSWER_S = 120.0  # passwords are checked one after the other, and the machine may have more to do
MOST_STRANGERS = 256
MOST_HEAD = 32_768  # bytes of a request's first line and headers; other programs on this host set cookies, too
MOST_WAITING = 8  # requests sent ahead on one connection; browsers send none
HEAD_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 26\r\nconnection: close\r\n\r\nThe headers are too large."
)
MOST_LINES, EVERY_S = 5, 60.0  # of one kind in the log
RawHeaders = list[tuple[bytes, bytes]]


class Lobby:
    """The connections of strangers, the one idle longest first.

    Args:
        knows: do these headers, with names in lower case, hold a login?
        tls: where the server speaks TLS.
    """

    def __init__(self, knows: Callable[[RawHeaders], bool], tls: ssl.SSLContext | None = None) -> None:
        self.knows, self.tls = knows, tls
        self._timers: dict[asyncio.Transport, asyncio.TimerHandle] = {}

    def enter(self, transport: asyncio.Transport, seconds: float) -> None:
        """It is a stranger's, and has this long from now on."""
        self.leave(transport)
        if len(self._timers) >= MOST_STRANGERS:
            self._expire(next(iter(self._timers)))
        self._timers[transport] = asyncio.get_running_loop().call_later(seconds, self._expire, transport)

    def has(self, transport: asyncio.Transport) -> bool:
        """Is it a stranger's?"""
        return transport in self._timers

    def leave(self, transport: asyncio.Transport) -> None:
        """It has shown a login, or was closed."""
        if timer := self._timers.pop(transport, None):
            timer.cancel()

    def _expire(self, transport: asyncio.Transport) -> None:
        self.leave(transport)
        transport.abort()


class Arrival(asyncio.Protocol):
    """A connection as it was accepted, until TLS is agreed on; then `Connection` has it. uvicorn makes it."""

    def __init__(self, lobby: Lobby, config: Config, server_state: ServerState, **others: Any) -> None:
        self._lobby = lobby
        self._http = Connection(lobby, config, server_state, others["app_state"], others.get("_loop"))
        self._early: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hands it on, or begins TLS."""
        assert isinstance(transport, asyncio.Transport)
        self._lobby.enter(transport, REQUEST_S)
        self._http.raw = transport
        if self._lobby.tls is None:
            self._http.connection_made(transport)
            transport.set_protocol(self._http)
            return
        transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._secure(transport, self._lobby.tls))

    def data_received(self, data: bytes) -> None:
        """What came with the end of the handshake."""
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended before `Connection` had it."""
        if self._http.raw:
            self._lobby.leave(self._http.raw)

    async def _secure(self, raw: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secure = await asyncio.get_running_loop().start_tls(raw, self, context, server_side=True)
        except OSError:  # no TLS, no common version, gone
            secure = None
        if secure is None or secure.is_closing():
            self._lobby.leave(raw)
            raw.abort()
            return
        self._http.connection_made(secure)
        secure.set_protocol(self._http)
        for data in self._early:
            self._http.data_received(data)


class Connection(HttpToolsProtocol):
    """uvicorn's, with bounds on a request's head and on requests sent ahead; tells the lobby who is a stranger."""

    def __init__(self, lobby: Lobby, *args: Any) -> None:
        super().__init__(*args)
        self.raw: asyncio.Transport | None = None  # beneath TLS; the lobby's key
        self._lobby, self._in_head, self._head = lobby, False, 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody's any more."""
        super().connection_lost(exc)
        if self.raw:
            self._lobby.leave(self.raw)

    def data_received(self, data: bytes) -> None:
        """Refuses a head without end; of one that ended, the guard looks at the length."""
        super().data_received(data)
        self._head += len(data)
        if self._in_head and self._head > MOST_HEAD and not self.transport.is_closing():
            self.transport.write(HEAD_TOO_LONG)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Of a head."""
        super().on_message_begin()
        self._in_head, self._head = True, 0

    def on_headers_complete(self) -> None:
        """Raises what httptools takes for a malformed request, if too many were sent ahead."""
        self._in_head = False
        if len(self.pipeline) >= MOST_WAITING:
            raise ValueError("too many requests at once")
        if self.raw and self._lobby.knows(self.headers):
            self._lobby.leave(self.raw)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of the request is here; now it is the dashboard that takes its time."""
        if self.raw and self._lobby.has(self.raw):
            self._lobby.enter(self.raw, ANSWER_S)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The next request may be a stranger's."""
        if self.raw and not self.transport.is_closing():
            self._lobby.enter(self.raw, REQUEST_S)
        super().on_response_complete()


class Seldom(logging.Filter):
    """Lets `MOST_LINES` of one kind through every `EVERY_S`: strangers must not fill the log."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._lines, self._until = clock, dict[str, int](), 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Is it let through? A kind is a message before its values are put in."""
        if self._clock() >= self._until:
            self._lines, self._until = {}, self._clock() + EVERY_S
        kind = str(record.msg)
        self._lines[kind] = self._lines.get(kind, 0) + 1
        if self._lines[kind] == MOST_LINES:
            record.msg = f"{record.msg} (no more such lines for a minute)"
        return self._lines[kind] <= MOST_LINES
