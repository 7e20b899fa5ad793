# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What surrounds every page: header, navigation, the state of the connection, and the theme."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nicegui import ui
from starlette.requests import Request

from dashboard.pages.live import LOOK_S, Live
from dashboard.pages.parts import Text, attributes, box, button, chip, icon
from dashboard.system import Snapshot
from dashboard.web import Web
from dashboard.words import Mark

PLACES = (("Network", "/", "hub"), ("Launch", "/launch", "rocket_launch"), ("Sessions", "/sessions", "view_list"))
THEME_COOKIE = "flare_dashboard_theme"
THEMES: dict[str, bool | None] = {"auto": None, "light": False, "dark": True}
THEME_ICONS = {"auto": "brightness_auto", "light": "light_mode", "dark": "dark_mode"}
YEAR_S = 365 * 24 * 3600
FOLDER = Path(__file__).resolve().parents[1]


def add_assets() -> None:
    """The style sheet and the script of all pages."""
    version = int(max((FOLDER / name).stat().st_mtime for name in ("style.css", "page.js")))
    ui.add_head_html(f'<link rel="stylesheet" href="/static/style.css?{version}">', shared=True)
    ui.add_head_html(f'<script src="/static/page.js?{version}" defer></script>', shared=True)


@contextmanager
def frame(web: Web, request: Request, title: str, place: str = "") -> Iterator[Live]:
    """Everything but the content, which the caller adds inside.

    Args:
        web: what pages share.
        request: the browser's.
        title: of the page.
        place: which of PLACES it belongs to.
    """
    theme = request.cookies.get(THEME_COOKIE, "auto")
    _set_theme(theme if theme in THEMES else "auto")
    ui.page_title(f"{title} - FLARE dashboard")
    live = Live(web.flare, web.reports)
    drawer = _navigation(place)
    _header(web, live, drawer, theme if theme in THEMES else "auto")
    ui.on_exception(_tell)
    with box("page") as main:
        live.part(lambda snapshot: (snapshot.problem, snapshot.taken == 0), _banner)
        yield live
    ui.skip_link("Skip to the content", target=main)
    ui.timer(LOOK_S, live.look)


def _tell(error: Exception) -> None:
    """After a click that did not work, of which NiceGUI has written the reason into the log."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else "the dashboard's log says why"
    ui.notify(f"That did not work: {why}.", type="negative", multi_line=True, close_button="Close", timeout=0)


def _set_theme(theme: str) -> None:
    """For this answer only: NiceGUI keeps the theme with the page, which all browsers share."""
    client = ui.context.client
    client.page = copy.copy(client.page)
    client.page.dark = THEMES[theme]


def _navigation(place: str) -> ui.left_drawer:
    drawer = attributes(ui.left_drawer(value=False, bordered=True).classes("drawer"), width=216, show_if_above=True)
    with drawer, attributes(box("nav", "nav"), aria_label="Main"):
        for name, target, symbol in PLACES:
            here = "here" if name == place else ""
            with attributes(box(f"nav-link {here}", "a"), href=target, data_testid=f"nav-{name.lower()}") as anchor:
                icon(symbol)
                Text("span", name)
            if here:
                attributes(anchor, aria_current="page")
    return drawer


def _header(web: Web, live: Live, drawer: ui.left_drawer, theme: str) -> None:
    kit = web.flare.kit
    with ui.header().classes("header"):
        menu = button("", drawer.toggle, "menu", "icon-button menu-button", "menu")
        attributes(menu, aria_label="Open or close the navigation")
        with attributes(box("brand", "a"), href="/", aria_label="FLARE dashboard: Network"):
            icon("hub", "brand-icon")
            with box("brand-text"):
                Text("strong", "FLARE dashboard")
                Text("span", kit.project)
        box("spring")
        live.part(lambda snapshot: (bool(snapshot.problem), snapshot.taken == 0), _connection, "connection")
        with attributes(box("user"), data_testid="user"):
            Text("span", kit.user)
            Text("small", kit.role)
        _theme_menu(theme)
        with attributes(box("", "form"), action="/logout", method="post"):
            out = attributes(button("", symbol="logout", kind="icon-button", name="logout"), type="submit")
            attributes(out, aria_label="Log out", title="Log out")


def _theme_menu(theme: str) -> None:
    opener = button("", symbol=THEME_ICONS[theme], kind="icon-button", name="theme")
    attributes(opener, aria_label="Theme", title="Theme")

    def choose(chosen: str) -> None:
        dark = {None: "null", True: "true", False: "false"}[THEMES[chosen]]
        secure = "; Secure" if ui.context.client.request.url.scheme == "https" else ""
        cookie = f"{THEME_COOKIE}={chosen}; Path=/; Max-Age={YEAR_S}; SameSite=Strict{secure}"
        ui.run_javascript(f"setDark({dark}); document.cookie = '{cookie}'")
        opener.props["icon"] = THEME_ICONS[chosen]

    with opener, ui.menu().props("auto-close").classes("menu"):
        for name, symbol in THEME_ICONS.items():
            with ui.menu_item(on_click=lambda name=name: choose(name)).classes("menu-item") as item:
                icon(symbol)
                Text("span", {"auto": "As the system"}.get(name, name.capitalize()))
            attributes(item, data_testid=f"theme-{name}")


def _connection(snapshot: Snapshot) -> None:
    if snapshot.problem:
        mark = Mark("FLARE not reachable", "cloud_off", "bad")
    elif not snapshot.taken:
        mark = Mark("Connecting", "cloud_sync", "idle")
    else:
        mark = Mark("Connected", "cloud_done", "good")
    attributes(chip(mark, "connection"), role="status")


def _banner(snapshot: Snapshot) -> None:
    if not snapshot.problem:
        return
    with attributes(box("notice bad banner"), role="alert", data_testid="banner"):
        icon("cloud_off")
        with box("notice-text"):
            Text("strong", snapshot.problem)
            if snapshot.taken:
                Text("p", "What you see is the last reading; the dashboard keeps trying, and goes on by itself.")
