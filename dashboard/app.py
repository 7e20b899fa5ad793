# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Puts the pages, the login and the guard together, and serves them."""

from __future__ import annotations

import asyncio
import logging
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import nicegui
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from jinja2 import DictLoader
from nicegui import background_tasks, core, ui
from nicegui.client import templates
from starlette.middleware import Middleware
from starlette.responses import FileResponse, Response

from bundle.admin_kit import Kit
from custom.errors import BundleError
from dashboard.connections import Arrival, Lobby, Seldom
from dashboard.flare import Flare
from dashboard.logins import Gate, Logins
from dashboard.pages import compare, downloads, launch, login, missing, network, session, sessions
from dashboard.pages.frame import FOLDER, add_assets
from dashboard.passwords import read_password
from dashboard.security import LONGEST_BODY, Cookies, Guard
from dashboard.serving import Address
from dashboard.web import Web

TITLE = "FLARE dashboard"
ASSETS = {"style.css": "text/css", "page.js": "text/javascript"}
RECONNECT_S = 30.0  # a browser that is away for less finds its page as it was
GZIP_LEVEL = 5  # pages are small, and the processor is the FLARE server's, maybe
HISTORY = 40  # messages kept for it; each may hold a chart
PASSWORD_S = 2.0  # between looks at the password's file
log = logging.getLogger(__name__)


def serve(kit: Kit, cache: Path, address: Address, password: Path, open_browser: bool = False) -> None:
    """Serves until it is interrupted.

    Args:
        kit: of the admin to act as.
        cache: folder for downloads and uploads.
        address: checked.
        password: the file with its hash.
        open_browser: once it is there.

    Raises:
        BundleError: the password's file is not as it must be.
    """
    flare = Flare(kit, cache)
    app = create_app(Web(flare), address, password, open_browser)
    config = uvicorn.Config(
        app,
        host=address.host,
        port=address.port,
        loop="asyncio",  # `Arrival` can begin TLS in it before anything was read, which uvloop does not allow
        http=partial(Arrival, Lobby(app.knows, address.tls())),  # type: ignore[arg-type]
        log_level="warning",
        proxy_headers=False,  # else whoever reaches it chooses the address that logins are counted by
        server_header=False,
        ws_max_size=LONGEST_BODY,
        ws_per_message_deflate=False,  # many small messages: it costs more memory and time than it saves
        timeout_graceful_shutdown=3,
    )
    logging.getLogger("uvicorn.error").addFilter(Seldom())
    with suppress(KeyboardInterrupt):  # Ctrl-C, after which uvicorn has ended in order
        uvicorn.Server(config).run()


def create_app(web: Web, address: Address, password: Path, open_browser: bool = False) -> Guard:
    """The whole application. NiceGUI keeps its state in its module, so there can be one in a process."""
    logins, gate = Logins(), Gate(read_password(password))
    cookies = Cookies.of(address.port, address.certificate is not None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        web.remove_old_uploads()
        web.flare.start()
        background_tasks.create(_read_forms(web), name="read forms")
        watching = asyncio.create_task(_watch_password(password, gate, logins))
        if open_browser:
            asyncio.get_running_loop().call_later(0.5, webbrowser.open, address.url)
        yield
        watching.cancel()
        await asyncio.to_thread(web.flare.stop)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    login.add_routes(app, logins, gate, web.flare.kit.project, cookies)
    downloads.add_routes(app, web)
    _add_assets(app)
    for page in (network, launch, sessions, session, compare):
        page.add_page(web)
    missing.add_handlers(web)
    _configure()
    ui.run_with(
        app,
        title=TITLE,
        favicon=FOLDER / "favicon.svg",
        dark=None,
        language="en-GB",
        tailwind=False,  # 0.25 MB that compile styles in the browser; style.css is 10 kB
        binding_refresh_interval=None,
        reconnect_timeout=RECONNECT_S,
        message_history_length=HISTORY,
        show_welcome_message=False,
        gzip_middleware_factory=None,
    )
    # NiceGUI's others are for prefixes and for caching, which the guard does; they break when a browser leaves.
    core.app.user_middleware[:] = [Middleware(GZipMiddleware, compresslevel=GZIP_LEVEL)]
    return Guard(app, logins, address.names(), cookies)


async def _read_forms(web: Web) -> None:
    try:
        await web.forms()
    except BundleError as error:
        log.error("the jobs cannot be read: %s", error)


async def _watch_password(path: Path, gate: Gate, logins: Logins) -> None:
    """Takes a new password, and logs everybody out who had given the old one."""
    problem = ""
    while True:
        await asyncio.sleep(PASSWORD_S)
        try:
            hashed, new_problem = read_password(path), ""
        except BundleError as error:
            hashed, new_problem = gate.hashed, f"the password stays as it was: {error}"
        if new_problem not in ("", problem):
            log.warning("%s", new_problem)
        problem = new_problem
        if hashed != gate.hashed:
            gate.hashed = hashed
            logins.close_all()
            log.warning("the password was changed; everybody is logged out")


def _add_assets(app: FastAPI) -> None:
    @app.get("/static/{name}")
    async def asset(name: str) -> Response:
        if name not in ASSETS:
            return Response(status_code=404)
        headers = {"Cache-Control": "max-age=3600"}
        return FileResponse(FOLDER / name, media_type=ASSETS[name], headers=headers)

    @app.get("/alive")
    async def alive() -> Response:
        """For page.js: 401 by the guard once the login is over."""
        return Response(status_code=204)

    add_assets()


def _configure() -> None:
    """What NiceGUI has no option for."""
    core.sio.eio.cors_allowed_origins = []  # no headers for other sites; the guard has looked at the origin
    ui.button.default_props("no-caps unelevated")
    template = (Path(nicegui.__file__).parent / "templates" / "index.html").read_text(encoding="utf-8")
    with_nonce = template.replace("<script", '<script nonce="{{ request.scope.csp_nonce }}"')
    templates.env.loader = DictLoader({"index.html": with_nonce})
