# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Who gets in: real requests to a real process, and what its pages make of hostile names."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from dashboard.passwords import write_password
from dashboard.security import local_path
from tests.dashboard.hostile import BROKEN_ID, FROM_FILE_ID, FROM_GONE_ID, HTML, JOB_ID, RUNNING_ID, SCRIPT
from tests.dashboard.served import PASSWORD, Served, unverified, write_certificate

NEW_PASSWORD = "another horse battery staple"
LIMIT_S = 600.0  # to fail in place of hanging
PAGES = ["/", "/launch", "/sessions", "/session/x", "/compare"]
OTHERS = [
    "/session/x/model",
    "/session/x/metrics.json",
    "/_nicegui_ws/socket.io/?EIO=4&transport=polling",
    "/_nicegui/3.18.0/static/nicegui.js",
    "/static/page.js",
    "/alive",
    "/nothing",
]
POLLING = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
ELEMENTS = re.compile(r"parseElements\(String\.raw`(.*?)`\)", re.DOTALL)


@pytest.fixture(scope="module")
def user(served: Served) -> Iterator[httpx.Client]:
    with served.logged_in() as client:
        yield client


def websocket(served: Served, client: httpx.Client | None = None, **headers: str) -> ClientConnection:
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items()) if client else ""
    address = served.url.replace("http", "ws") + POLLING.replace("polling", "websocket")
    sent = headers | ({"Cookie": cookies} if cookies else {})
    tls = unverified() if address.startswith("wss") else None
    return connect(address, additional_headers=sent, open_timeout=LIMIT_S, ssl=tls)


def page_when(client: httpx.Client, path: str, ready: Callable[[str], bool]) -> str:
    """The page, as soon as it is so; what it shows is read by threads of the dashboard."""
    end = time.monotonic() + LIMIT_S
    while not ready(page := client.get(path).text):
        assert time.monotonic() < end, f"{path} after {LIMIT_S:.0f} s: {page}"
        time.sleep(0.1)
    return page


@pytest.mark.parametrize("path", PAGES)
def test_a_page_needs_a_login(served: Served, path: str) -> None:
    with served.client() as client:
        answer = client.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")


@pytest.mark.parametrize("path", OTHERS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_everything_else_needs_a_login_too(served: Served, path: str, method: str) -> None:
    with served.client() as client:
        answer = client.request(method, path, headers={"accept": "*/*"}, content=b"" if method == "GET" else b"x")
    assert answer.status_code == 401


def test_a_made_up_cookie_is_no_login(served: Served) -> None:
    with served.client() as client:
        client.cookies.set(served.cookie, "x" * 43)
        assert client.get("/").status_code == 303


@pytest.mark.parametrize("other", ['prefs={"a":1}', "a[b]=c", "flag", "=", '"', "x=é"])
def test_cookies_of_other_programs_on_this_host_do_no_harm(served: Served, user: httpx.Client, other: str) -> None:
    """Browsers send a host's cookies to all its ports."""
    own = f"{served.cookie}={user.cookies[served.cookie]}"
    for header in (f"{other}; {own}", f"{own}; {other}"):
        answer = httpx.get(f"{served.url}/sessions", headers={"cookie": header.encode(), "accept": "text/html"})
        assert answer.status_code == 200


def test_two_dashboards_on_one_host_have_cookies_of_their_own(served: Served, user: httpx.Client) -> None:
    assert set(user.cookies) == {served.cookie, f"{served.cookie}_device"}
    assert str(served.port) in served.cookie


def test_a_websocket_needs_a_login(served: Served, user: httpx.Client) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        websocket(served, Origin=served.url)
    with websocket(served, user, Origin=served.url) as connection:
        assert json.loads(str(connection.recv(LIMIT_S))[1:])["sid"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost:1", "null", "http://localhost.evil.example"]
)
def test_a_foreign_origin_is_refused(served: Served, user: httpx.Client, origin: str) -> None:
    """A page of another site, or of another program on this machine, with this user's cookie."""
    with pytest.raises(InvalidStatus, match="403"):
        websocket(served, user, Origin=origin)
    for method, path in (("GET", POLLING), ("POST", POLLING), ("POST", "/logout"), ("POST", "/login")):
        answer = user.request(method, path, headers={"origin": origin}, content=b"" if method == "GET" else b"x")
        assert answer.status_code == 403, (method, path)
        assert "access-control-allow-origin" not in answer.headers
    assert user.get("/").status_code == 200  # still logged in


def test_a_request_that_another_site_made_without_an_origin_is_refused(user: httpx.Client) -> None:
    """An image or a script with our address in it."""
    for site in ("cross-site", "same-site"):
        assert user.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}).status_code == 403
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert user.get("/", headers=link).status_code == 200


def test_a_link_from_another_site_is_followed_once_more_with_the_cookie(served: Served) -> None:
    """Browsers keep a strict cookie back from a link; asked by our own page, they send it."""
    with served.client() as client:
        answer = client.get("/sessions", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"})
    assert answer.status_code == 200
    assert 'http-equiv="refresh"' in answer.text
    assert "Sessions" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "[::2]", "a b"])
def test_a_foreign_host_is_refused(served: Served, user: httpx.Client, host: str) -> None:
    """DNS rebinding: a name of the attacker that leads to this machine."""
    assert user.get("/", headers={"host": host}).status_code in (400, 421)
    assert user.get("/login", headers={"host": host}).status_code in (400, 421)


def test_own_polling_works(served: Served, user: httpx.Client) -> None:
    answer = user.get(POLLING, headers={"origin": served.url})
    assert answer.status_code == 200
    assert "sid" in answer.text


def test_cookies_and_headers(served: Served) -> None:
    with served.client() as client:
        answer = client.post("/login", data={"password": PASSWORD})
        for cookie in answer.headers.get_list("set-cookie"):
            assert "HttpOnly" in cookie
            assert "SameSite=strict" in cookie
        page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert "http" not in policy  # no foreign hosts
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"


def test_every_script_of_a_page_has_the_nonce(user: httpx.Client) -> None:
    page = user.get("/")
    nonce = re.search(r"'nonce-([^']+)'", page.headers["content-security-policy"])
    assert nonce
    scripts = re.findall(r"<script[^>]*>", page.text)
    assert len(scripts) > 5
    assert all(f'nonce="{nonce[1]}"' in script or 'src="/static/page.js' in script for script in scripts)
    assert user.get("/").headers["content-security-policy"] != page.headers["content-security-policy"]


def test_a_page_loads_nothing_from_elsewhere(user: httpx.Client) -> None:
    page = user.get("/")
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//[^"' >]+""", page.text) == []


def test_a_page_says_that_flare_is_not_running(served: Served, user: httpx.Client) -> None:
    """The kit leads to a port that nothing listens at; the banner is there only then, and names it."""
    kit = json.loads((served.folder / "kit" / "startup" / "fed_admin.json").read_text())["admin"]
    page = page_when(user, "/", lambda page: '"banner"' in page)
    elements = _elements(page)
    [banner] = [element for element in elements.values() if element.get("props", {}).get("data-testid") == "banner"]
    assert f"localhost:{kit['port']}" in " ".join(_texts(elements, banner))


def test_logging_out_ends_the_login_and_its_websockets(served: Served) -> None:
    with served.logged_in() as client, websocket(served, client, Origin=served.url) as connection:
        connection.recv(LIMIT_S)
        token = client.cookies[served.cookie]
        for _ in range(2):  # the second time without a login
            answer = client.post("/logout", headers={"origin": served.url}, content=b"")
            assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        with pytest.raises(ConnectionClosed, match="1008"):
            connection.recv(LIMIT_S)
        client.cookies.set(served.cookie, token)
        assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    ("length", "status"), [("Content-Length: 10000000000", 413), ("Transfer-Encoding: chunked", 411)]
)
def test_a_long_body_is_refused_before_it_is_read(served: Served, length: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_S) as connection:
        connection.sendall(f"POST /login HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
        assert connection.recv(100).startswith(f"HTTP/1.1 {status}".encode())


def test_a_forwarded_prefix_is_not_believed(user: httpx.Client) -> None:
    assert "evil" not in user.get("/", headers={"x-forwarded-prefix": "/evil", "x-forwarded-host": "evil"}).text


@pytest.mark.parametrize(
    ("target", "goes"),
    [
        ("/sessions?a=b", "/sessions?a=b"),
        ("", "/"),
        ("sessions", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
    ],
)
def test_logging_in_leads_nowhere_else(target: str, goes: str) -> None:
    assert local_path(target) == goes


def test_guessing_is_slowed_down_and_says_so(tmp_path: Path) -> None:
    """Five attempts at once, and then one every 12 s, of which none goes by here."""
    served = Served(tmp_path, "tests.dashboard.still")
    try:
        with served.logged_in() as known, served.client() as stranger:
            with ThreadPoolExecutor(8) as together:
                guesses = [f"wrong {n}" for n in range(8)]
                answers = list(together.map(lambda guess: stranger.post("/login", data={"password": guess}), guesses))
            refused = [answer for answer in answers if answer.status_code == 429]
            assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 3
            assert "Wait" in refused[0].text
            assert 12 <= int(refused[0].headers["retry-after"]) <= 13
            assert stranger.post("/login", data={"password": PASSWORD}).status_code == 429
            del known.cookies[served.cookie]  # the owner, at the same address, is let in all the same
            assert known.post("/login", data={"password": PASSWORD}).status_code == 303
        assert PASSWORD not in served.log()
        assert "wrong" not in served.log()
    finally:
        served.stop()


def test_a_new_password_logs_everybody_out_of_a_dashboard_that_runs(tmp_path: Path) -> None:
    served = Served(tmp_path)
    try:
        with served.logged_in() as user, websocket(served, user, Origin=served.url) as connection:
            connection.recv(LIMIT_S)
            (tmp_path / "password").chmod(0o644)  # a mistake, which changes nothing
            page_when(user, "/alive", lambda _: "stays as it was" in served.log())
            assert user.get("/alive").status_code == 204
            write_password(tmp_path / "password", NEW_PASSWORD)
            with pytest.raises(ConnectionClosed, match="1008"):
                connection.recv(LIMIT_S)
            assert user.get("/alive").status_code == 303
            assert user.post("/login", data={"password": PASSWORD}).status_code == 401
            assert user.post("/login", data={"password": NEW_PASSWORD}).status_code == 303
        assert "everybody is logged out" in served.log()
    finally:
        served.stop()


def test_served_by_tls_the_cookie_is_secure(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, "server")
    served = Served(tmp_path, "dashboard", "--tls-cert", str(certificate), "--tls-key", str(key))
    try:
        with served.client() as client:
            answer = client.post("/login", data={"password": PASSWORD}, headers={"origin": served.url})
            assert answer.status_code == 303
            assert all("Secure" in cookie for cookie in answer.headers.get_list("set-cookie"))
            assert client.post("/login", headers={"origin": served.url.replace("https", "http")}).status_code == 403
    finally:
        served.stop()


def test_hostile_names_are_text(tmp_path: Path) -> None:
    """In a page as it is sent: nothing outside NiceGUI's escaped JSON, and no name as a key or as HTML inside it."""
    served = Served(tmp_path, "tests.dashboard.hostile")
    paths = [
        "/",
        "/sessions",
        f"/session/{JOB_ID}",
        f"/session/{RUNNING_ID}",
        f"/compare?jobs={JOB_ID}",
        f"/launch?clone={SCRIPT}",
        f"/launch?clone={FROM_FILE_ID}",
    ]
    try:
        with served.logged_in() as client:
            client.get(f"/session/{JOB_ID}")  # asks for its report
            client.get(f"/session/{RUNNING_ID}")
            for path in paths:
                page = client.get(path)
                assert page.status_code == 200, path
                assert HTML not in page.text, path
                assert SCRIPT not in page.text, path
                _check_elements(page.text, path)
    finally:
        served.stop()
        assert "Traceback" not in served.log()


def test_what_a_job_started_from_is_not_left_out_of_the_form_to_launch_it_again(tmp_path: Path) -> None:
    """Nor are settings that the form does not take."""
    served = Served(tmp_path, "tests.dashboard.hostile")
    try:
        with served.logged_in() as client:
            for job_id, told in (
                (FROM_FILE_ID, ("started from my model.pt; upload it again", "which this form does not take")),
                (FROM_GONE_ID, ("started from the model of job 70e0cc18, which is gone",)),
            ):
                page = page_when(client, f"/launch?clone={job_id}", lambda page: "Reading the jobs" not in page)
                assert all(text in page for text in told), job_id
    finally:
        served.stop()
    assert "Traceback" not in served.log()


def test_where_a_part_of_a_page_breaks_the_others_stay(tmp_path: Path) -> None:
    served = Served(tmp_path, "tests.dashboard.hostile")
    try:
        with served.logged_in() as client:
            page = page_when(client, f"/session/{BROKEN_ID}", lambda page: "could not be shown" in page)
            assert "Completed" in page
            assert "NoneType" not in page
    finally:
        served.stop()
    assert "a part of a page could not be drawn" in served.log()


def _elements(page: str) -> dict[str, Any]:
    """What NiceGUI draws, by id."""
    found = ELEMENTS.search(page)
    assert found
    text = found[1]
    for escaped, plain in (("&#36;", "$"), ("&#96;", "`"), ("&gt;", ">"), ("&lt;", "<"), ("&amp;", "&")):
        text = text.replace(escaped, plain)  # as nicegui.js does
    elements: dict[str, Any] = json.loads(text)
    return elements


def _texts(elements: dict[str, Any], element: dict[str, Any]) -> Iterator[str]:
    """Of the element and all that it holds."""
    yield str(element.get("text", ""))
    for child in element.get("children", []):
        yield from _texts(elements, elements[str(child)])


def _check_elements(page: str, path: str) -> None:
    elements = _elements(page).values()
    assert path.startswith("/launch") or any("onerror" in json.dumps(element) for element in elements), (
        "nothing hostile"
    )
    for element in elements:
        props = element.get("props", {})
        assert "innerHTML" not in props
        assert "content" not in props  # of ui.html and ui.markdown
        assert not any("<" in key or key.startswith(":") for key in _keys(props)), props


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
