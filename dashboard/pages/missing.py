# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What is shown for an address that is none, and where a page broke."""

from __future__ import annotations

import logging

from fastapi.exception_handlers import http_exception_handler
from nicegui import app, ui
from nicegui.client import Client
from nicegui.page import page
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dashboard.pages.frame import frame
from dashboard.pages.parts import Text, box, empty, link_button
from dashboard.web import Web

NOT_FOUND = 404
log = logging.getLogger(__name__)


def add_handlers(web: Web) -> None:
    """Both, in the place of NiceGUI's."""

    @app.exception_handler(NOT_FOUND)
    async def missing(request: Request, error: HTTPException) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return await http_exception_handler(request, error)
        with Client(page(""), request=request) as client:
            _draw(web, request, "There is no such page", "The address is wrong, or the page is gone.")
        return client.build_response(request, NOT_FOUND)

    @app.on_page_exception
    def broken(error: Exception) -> None:
        """Says no more than that: an exception may hold what is nobody's business."""
        log.error("a page broke", exc_info=error)
        _draw(web, ui.context.client.request, "This page broke", "The dashboard's log on the server says why.")


def _draw(web: Web, request: Request, title: str, text: str) -> None:
    with frame(web, request, title):
        with box("title"):
            Text("h1", title)
        empty("sentiment_dissatisfied", title, text, "missing")
        link_button("Network", "/", "hub")
