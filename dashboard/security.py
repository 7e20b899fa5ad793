# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Stands before everything that is served, websockets included: whose request is let through, with which headers.

What is refused, in this order: headers that are too long, a Host that is none of ours (DNS rebinding), a request that
another site's page made, a body without a length or too long, and whatever has no login, but for the login page and
what that needs. How long a connection may last without a login, and how many there may be: `dashboard.connections`.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bundle.report.wording import human_bytes
from dashboard.connections import MOST_HEAD, RawHeaders
from dashboard.logins import Login, Logins

PUBLIC = ("/login", "/logout", "/favicon.ico", "/static/style.css")
OK = 200
FILES = re.compile(r"/_nicegui/[\d.]+/(static|libraries|components|esm|resources)/")
READING = ("GET", "HEAD")
UPLOADS = "/_nicegui/client/"
LONGEST_UPLOAD = 2 * 10**9  # bytes
LONGEST_BODY = 1_100_000  # bytes; socket.io's own limit by polling is 1 MB
LONGEST_FORM = 32_768  # bytes of what anybody may send, the login form
USER_DID = '42["event"'  # what a websocket message of a click or a key begins with; others come by themselves
POLICY_CLOSE = 1008
BOUNCE = '<!doctype html><meta http-equiv="refresh" content="0"><title>FLARE dashboard</title>'
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)  # Vue compiles its templates in the browser, for which it needs eval; NiceGUI writes style elements
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # no-referrer would make browsers send "Origin: null" with forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Cookies(NamedTuple):
    """Names of the cookies, and whether they travel by TLS alone.

    Attributes:
        login: holds the token of a login.
        device: of a browser that has logged in before.
        secure: is the dashboard served by TLS?
    """

    login: str
    device: str
    secure: bool

    @classmethod
    def of(cls, port: int, secure: bool) -> Cookies:
        """With the port in the names: a browser sends a host's cookies to all its ports, other dashboards included."""
        return cls(f"flare_dashboard_{port}", f"flare_dashboard_{port}_device", secure)


class Guard:
    """ASGI middleware; see the module.

    Args:
        app: what is guarded.
        logins: who is logged in.
        names: host names that the dashboard answers to, lower case; `*.example.org` stands for any one label.
        cookies: the dashboard's.
    """

    def __init__(self, app: ASGIApp, logins: Logins, names: frozenset[str], cookies: Cookies) -> None:
        self.app, self.logins, self.names, self.cookies = app, logins, names, cookies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope["csp_nonce"] = secrets.token_urlsafe(16)
        scope["headers"] = [(name, value) for name, value in scope["headers"] if not name.startswith(b"x-forwarded-")]
        login = self._login(headers)
        refusal = self._refusal(scope, headers, login)
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send, None if refusal else login)
            return
        if login and not refusal:
            self.logins.touch(login)
        await (refusal or self.app)(scope, receive, self._with_headers(scope, send))

    def knows(self, headers: RawHeaders) -> bool:
        """Do these headers of a request hold a login?"""
        return self._login(Headers(raw=headers)) is not None

    def _login(self, headers: Headers) -> Login | None:
        cookie = headers.get("cookie", "")
        return self.logins.find(cookie_parser(cookie).get(self.cookies.login, "")) if len(cookie) <= MOST_HEAD else None

    def _refusal(self, scope: Scope, headers: Headers, login: Login | None) -> Response | None:
        if _head_bytes(scope, headers) > MOST_HEAD:
            return _too_much("The headers are too large.", 431)
        if "transfer-encoding" in headers:  # which no browser sends; what may follow such a body has no bounds
            return _too_much("A length is needed.", 411)
        if not self._is_ours(headers):
            return PlainTextResponse("This dashboard does not answer to that host name.", 421)
        if self._is_foreign(scope, headers):
            return PlainTextResponse("Refused: another site's page made this request.", 403)
        if scope["type"] == "http" and scope["method"] not in READING:
            most = _most_bytes(scope["path"])
            length = headers.get("content-length", "")
            if not length.isdecimal():
                return _too_much("A length is needed.", 411)
            if int(length) > most:
                return _too_much(f"Too large: the most is {human_bytes(most)}.", 413)
        if login or (scope["type"] == "http" and scope["path"] in PUBLIC):
            return None
        return _to_login(scope, headers)

    def _is_ours(self, headers: Headers) -> bool:
        hosts = headers.getlist("host")
        name = _host_name(hosts[0]) if len(hosts) == 1 else ""
        return bool(name) and (name in self.names or f"*.{name.partition('.')[2]}" in self.names)

    def _is_foreign(self, scope: Scope, headers: Headers) -> bool:
        """Did a page of another site make the request? Browsers say so; a program that says nothing needs a login."""
        own = f"{'https' if self.cookies.secure else 'http'}://{headers['host']}".lower()
        if any(origin.lower() != own for origin in headers.getlist("origin")):
            return True
        by_link = scope.get("method") in READING and headers.get("sec-fetch-mode") == "navigate"
        return not by_link and headers.get("sec-fetch-site", "none") not in ("same-origin", "none")

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["Content-Security-Policy"] = POLICY.format(nonce=scope["csp_nonce"])
                if FILES.match(scope["path"]) and message["status"] == OK:
                    headers["Cache-Control"] = "private, max-age=31536000, immutable"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        return send_with_headers

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, login: Login | None) -> None:
        """Lets a login's messages through until it is over; with no login the handshake is refused (403)."""
        if login is None:
            await send({"type": "websocket.close", "code": POLICY_CLOSE})
            return
        closed = False

        async def receive_while_alive() -> Message:
            nonlocal closed
            message = await _first(receive(), login.ended)
            if message is None or not self.logins.alive(login):
                closed = True
                await send({"type": "websocket.close", "code": POLICY_CLOSE})
                return {"type": "websocket.disconnect", "code": POLICY_CLOSE}
            if (message.get("text") or "").startswith(USER_DID):
                self.logins.touch(login)
            return message

        async def send_while_open(message: Message) -> None:
            if not closed:
                await send(message)

        await self.app(scope, receive_while_alive, send_while_open)


def local_path(target: str) -> str:
    """The path and query to go to after logging in; the first page for anything that is not of this site."""
    parts = urlsplit(target.replace("\\", "/"))
    safe = target.startswith("/") and not target.startswith("//") and not parts.scheme and not parts.netloc
    return target if safe and target.isprintable() and "\\" not in target else "/"


async def _first(message: Awaitable[Message], ended: asyncio.Event) -> Message | None:
    """The next message, or None if the login is over first."""
    incoming, over = asyncio.ensure_future(message), asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait((incoming, over), return_when=asyncio.FIRST_COMPLETED)
        return None if over.done() else incoming.result()
    finally:
        over.cancel()
        incoming.cancel()


def _too_much(text: str, status: int) -> Response:
    """And what else comes on that connection is not read."""
    return PlainTextResponse(text, status, headers={"Connection": "close"})


def _head_bytes(scope: Scope, headers: Headers) -> int:
    parts = (part for line in headers.raw for part in line)
    return len(scope["path"]) + len(scope["query_string"]) + sum(map(len, parts))


def _most_bytes(path: str) -> int:
    """Of the body of a request to that path."""
    if path.startswith(UPLOADS):
        return LONGEST_UPLOAD
    return LONGEST_FORM if path in PUBLIC else LONGEST_BODY


def _host_name(host: str) -> str:
    """Lower case and without the port; empty if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "") if not (parts.path or parts.query or parts.username) else ""
    except ValueError:
        return ""


def _to_login(scope: Scope, headers: Headers) -> Response:
    """To the login page where a person waits for a page; a plain refusal for everything else."""
    wants_page = scope.get("method") == "GET" and "text/html" in headers.get("accept", "")
    if not wants_page:
        return PlainTextResponse("Log in first.", 401)
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return HTMLResponse(BOUNCE)  # a link from elsewhere brings no strict cookie; the page's own reload does
    query = scope["query_string"].decode("latin-1")
    target = scope["path"] + (f"?{query}" if query else "")
    return RedirectResponse("/login" if target == "/" else f"/login?next={quote(target, safe='')}", 303)
