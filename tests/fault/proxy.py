# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A TCP proxy on loopback that stands for the network between a site and the server, and that can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Proxy:
    """Passes bytes on as they are, so TLS stays end to end; a context manager.

    Args:
        port: of the proxy.
        target: port of the server, on this machine too.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.passed = 0  # bytes
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Proxy:
        self.mend()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def mend(self) -> None:
        """Connections are accepted from now on."""
        with self._lock:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Drops all connections, and refuses new ones until `mend`."""
        with self._lock:
            listener, self._listener = self._listener, None
            if listener is not None:
                _end(listener)
            for connection in self._open:
                _end(connection)
            self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                site, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target), timeout=10)
            except OSError:  # the network is cut, or nobody serves
                if self._listener is not listener:
                    return
                continue
            server.settimeout(None)
            with self._lock:
                self._open += [site, server]
                if self._listener is not listener:  # cut meanwhile
                    _end(site)
                    _end(server)
                    return
            for one, other in ((site, server), (server, site)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := one.recv(65536):
                other.sendall(content)
                self.passed += len(content)
        _end(one)
        _end(other)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # else a thread that waits for it goes on waiting
    connection.close()
