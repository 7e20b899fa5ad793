# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What strangers can hold of a real dashboard, by real sockets."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from dashboard.connections import EVERY_S, MOST_HEAD, MOST_LINES, MOST_WAITING, Seldom
from dashboard.security import LONGEST_FORM
from tests.dashboard.hasty import MOST_STRANGERS, REQUEST_S
from tests.dashboard.served import PASSWORD, Served, unverified, write_certificate
from tests.dashboard.test_security import websocket

LIMIT_S = 120.0  # to fail in place of hanging; above REQUEST_S and ANSWER_S
BIG = 20_000_000
HEAD = b"GET /login HTTP/1.1\r\nHost: localhost\r\n"
FORM = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
UPGRADE = (
    b"GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
STUCK = {
    "nothing": b"",
    "half a head": HEAD,
    "empty lines": b"\r\n" * 10,
    "no body": FORM + b"Content-Length: 100\r\n\r\n",
    "half a body": FORM + b"Content-Length: 100\r\n\r\npassword=",
    "a body that nobody wants": b"POST /alive HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx",
    "many answers, none of which is read": (HEAD + b"\r\n") * 4,
    "another protocol": HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
}
REFUSED = {
    "one header": (HEAD + b"Cookie: x=" + b"a" * BIG, 431),
    "one header that ends": (HEAD + b"Cookie: x=" + b"a" * MOST_HEAD + b"\r\n\r\n", 431),
    "many headers": (HEAD + b"A: b\r\n" * (BIG // 6), 431),
    "the name of a header": (HEAD + b"a" * BIG, 431),
    "the path": (b"GET /" + b"a" * BIG, 431),
    "the query": (b"GET /login?next=" + b"a" * MOST_HEAD + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
    "the body": (FORM + b"Content-Length: %d\r\n\r\n" % (LONGEST_FORM + 1), 413),
    "a body in pieces": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nCookie: x=" + b"a" * BIG, 411),
}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hasty")
    certificate, key = write_certificate(folder, "server")
    served = Served(folder, "tests.dashboard.hasty", "--tls-cert", str(certificate), "--tls-key", str(key))
    yield served
    served.stop()


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_end_is_refused(served: Served, what: str) -> None:
    sent, status = REFUSED[what]
    before = _memory(served)
    with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_S) as connection:
        _send(connection, sent)
        assert _read(connection).split(b" ")[1] == str(status).encode()
    assert _memory(served) - before < BIG // 2
    _is_well(served)


def test_the_longest_head_and_form_that_are_allowed_are_served(served: Served) -> None:
    with served.client() as client:
        assert client.get("/login", headers={"cookie": "x=" + "a" * (MOST_HEAD - 1000)}).status_code == 200
        longest = {"password": "€" * 1000, "next": "/" + "a" * (LONGEST_FORM - 9 * 1000 - 1000)}
        assert client.post("/login", data=longest).status_code == 401


def test_requests_sent_ahead_are_bounded(served: Served) -> None:
    for number, refused in ((MOST_WAITING, False), (2000, True)):
        with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_S) as connection:
            connection.sendall((HEAD + b"\r\n") * (number - 1) + HEAD + b"Connection: close\r\n\r\n")
            answers = _read(connection)
        assert (b"400 Bad Request" in answers) == refused
        assert answers.count(b"200 OK") == number or refused


def test_a_form_of_another_kind_is_no_password(served: Served) -> None:
    with served.client() as client:
        answer = client.post("/login", files={"password": ("x", PASSWORD)}, headers={"origin": served.url})
    assert answer.status_code in (401, 429)


def test_a_stranger_that_leaves_in_the_middle_makes_no_trouble(served: Served) -> None:
    for sent in (b"", HEAD, FORM + b"Content-Length: 100\r\n\r\npassword=", UPGRADE, b"\x16\x03\x01\x02"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_S) as connection:
            connection.sendall(sent)
    _is_well(served)
    assert "Traceback" not in served.log()


def test_strangers_do_not_fill_the_log(served: Served) -> None:
    def offend(_: int) -> None:
        with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_S) as connection:
            connection.sendall(b"nonsense\r\n\r\n" if _ % 2 else UPGRADE.replace(b"Version: 13", b"Version: x"))
            _read(connection)

    lines = len(served.log().splitlines())
    with ThreadPoolExecutor(8) as together:
        list(together.map(offend, range(200)))
    assert len(served.log().splitlines()) - lines < 4 * MOST_LINES * 40  # a traceback has up to 40 lines


def test_a_stranger_has_only_so_long(hasty: Served) -> None:
    """Whatever it does; nor does a byte every now and then start the time anew."""
    started = time.monotonic()
    held = {f"{what}, slowly" if slow else what: (_connect(hasty), slow) for what in STUCK for slow in (False, True)}
    held |= {"half a handshake": (_raw(hasty), False), "half a handshake, slowly": (_raw(hasty), True)}
    for what, (connection, _) in held.items():
        connection.sendall(STUCK.get(what.removesuffix(", slowly"), b"\x16\x03\x01\x02\x00"))
    slow = [connection for connection, slowly in held.values() if slowly]
    while slow := [connection for connection in slow if _send(connection, b"a")]:
        assert time.monotonic() - started < LIMIT_S
        time.sleep(0.2)
    for connection, _ in held.values():
        _read(connection)
    assert REQUEST_S * 0.8 < time.monotonic() - started < LIMIT_S
    _is_well(hasty)
    assert "Traceback" not in hasty.log()


def test_who_is_logged_in_may_take_longer(hasty: Served) -> None:
    """An upload, a websocket, and a page on the connection that had been a stranger's."""
    with hasty.logged_in() as user, websocket(hasty, user, Origin=hasty.url) as messages:
        cookies = "; ".join(f"{name}={value}" for name, value in user.cookies.items())
        with _connect(hasty) as connection:
            connection.sendall(
                b"POST /_nicegui/client/x/upload/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n"
                + f"Cookie: {cookies}\r\nOrigin: {hasty.url}\r\n\r\n".encode()
            )
            time.sleep(REQUEST_S * 1.5)
            connection.sendall(b"abc")
            assert connection.recv(100).startswith(b"HTTP/1.1 4")
        assert user.get("/alive").status_code == 204
        messages.ping().wait(LIMIT_S)


def test_however_many_strangers_there_are_people_get_in(hasty: Served) -> None:
    with hasty.logged_in() as user:
        assert user.get("/alive").status_code == 204
        held = [_connect(hasty) if number % 2 else _raw(hasty) for number in range(3 * MOST_STRANGERS)]
        open_now = len(psutil.Process(hasty.process.pid).net_connections("tcp"))
        assert open_now < MOST_STRANGERS + 15  # the listening socket, the user's, and those to FLARE
        assert user.get("/alive").status_code == 204
        with hasty.client() as another:
            assert another.get("/login").status_code == 200
    for connection in held:
        connection.close()


def test_a_kind_of_line_is_logged_a_few_times_a_minute() -> None:
    now = [0.0]
    seldom = Seldom(lambda: now[0])

    def logged(message: str) -> bool:
        return seldom.filter(logging.LogRecord("x", logging.WARNING, "", 0, message, ("value",), None))

    assert [logged("a %s") for _ in range(MOST_LINES + 2)] == [True] * MOST_LINES + [False] * 2
    assert logged("b %s")
    now[0] = EVERY_S
    assert logged("a %s")


def _raw(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_S)


def _connect(served: Served) -> socket.socket:
    """By TLS."""
    return unverified().wrap_socket(_raw(served))


def _send(connection: socket.socket, data: bytes) -> bool:
    """As much as is taken; was that all?"""
    with suppress(OSError):
        connection.sendall(data)
        return True
    return False


def _read(connection: socket.socket) -> bytes:
    """All until the other end closes."""
    read = b""
    try:
        while data := connection.recv(65536):
            read += data
    except TimeoutError:
        raise AssertionError("still open") from None
    except OSError:
        pass
    return read


def _memory(served: Served) -> int:
    return int(psutil.Process(served.process.pid).memory_info().rss)


def _is_well(served: Served) -> None:
    with served.client() as client:
        assert client.get("/login").status_code == 200
