# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Logging in and out: plain pages without a script, for nobody is trusted with more before the password."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qsl

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from bundle.report.wording import human_seconds
from dashboard.logins import Gate, Logins
from dashboard.pages.frame import THEME_COOKIE
from dashboard.security import Cookies, local_path

LOGIN_S = 30 * 24 * 3600  # of the cookie; the login itself ends when nobody has clicked for long, see `Logins`
DEVICE_S = 180 * 24 * 3600
WRONG, TOO_MANY, DONE = 401, 429, 303
PAGE = """<!doctype html>
<html lang="en" data-theme="{theme}">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Log in - FLARE dashboard</title>
<link rel="stylesheet" href="/static/style.css">
</head>
<body class="login">
<main class="card">
<h1>FLARE dashboard</h1>
<p class="soft">{project}</p>
<form method="post" action="/login">
<input type="hidden" name="next" value="{target}">
<input type="text" name="user" value="dashboard" autocomplete="username" hidden>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus
 aria-describedby="problem" data-testid="password">
<p id="problem" class="problem" role="alert" data-testid="login-problem">{problem}</p>
<button type="submit" data-testid="login">Log in</button>
</form>
<p class="help">Forgotten? On the machine that runs the dashboard: <code>python -m dashboard --set-password</code></p>
</main>
</body>
</html>
"""


def add_routes(app: FastAPI, logins: Logins, gate: Gate, project: str, cookies: Cookies) -> None:
    """Adds `/login` and `/logout`.

    Args:
        app: to add them to.
        logins: who is logged in.
        gate: checks passwords.
        project: FLARE's name of the system.
        cookies: their names.
    """

    def set_cookie(response: Response, name: str, value: str, seconds: float) -> None:
        response.set_cookie(name, value, int(seconds), secure=cookies.secure, httponly=True, samesite="strict")

    def page(request: Request, target: str, problem: str = "", code: int = 200, wait: float = 0.0) -> Response:
        theme = request.cookies.get(THEME_COOKIE, "auto")
        texts = {"theme": theme, "project": project, "target": target, "problem": problem}
        headers = {"Retry-After": f"{wait + 1:.0f}"} if wait else {}
        return HTMLResponse(PAGE.format(**{k: escape(v, quote=True) for k, v in texts.items()}), code, headers=headers)

    @app.get("/login")
    async def ask(request: Request) -> Response:
        target = local_path(request.query_params.get("next", "/"))
        if logins.find(request.cookies.get(cookies.login, "")):
            return RedirectResponse(target, DONE)
        return page(request, target)

    @app.post("/login")
    async def log_in(request: Request) -> Response:
        form = await _form(request)
        password, target = form.get("password", ""), local_path(form.get("next", "/"))
        address, device = request.client.host if request.client else "", request.cookies.get(cookies.device, "")
        if wait := gate.wait(address, device):
            problem = f"Too many attempts. Wait {human_seconds(wait + 1)}, then try again; nothing is locked."
            return page(request, target, problem, TOO_MANY, wait)
        if not await run_in_threadpool(gate.admits, password, address, device):
            return page(request, target, "That is not the password.", WRONG)
        response = RedirectResponse(target, DONE)
        set_cookie(response, cookies.login, logins.open(), LOGIN_S)
        set_cookie(response, cookies.device, gate.new_device(), DEVICE_S)
        return response

    @app.post("/logout")
    async def log_out(request: Request) -> Response:
        logins.close(request.cookies.get(cookies.login, ""))
        response = RedirectResponse("/login", DONE)
        set_cookie(response, cookies.login, "", 0)
        return response


async def _form(request: Request) -> dict[str, str]:
    """What a browser sends of the form; the guard bounds its length. Empty if the visitor has gone meanwhile."""
    try:
        body = await request.body()
    except ClientDisconnect:
        return {}
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
