# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Who gets in, and what others get."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.dashboard.browser.pages import (
    HTML,
    log_in,
    new_context,
    screenshot,
)
from tests.dashboard.browser.system import System
from tests.dashboard.served import PASSWORD

pytestmark = pytest.mark.e2e
EVIL = "http://127.0.0.1:1234"  # another origin, but the same site: the browser does send it the strict cookies
ATTACK = """async (url) => {
  const path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket";
  const socket = new WebSocket(url.replace("http", "ws") + path);
  const opened = await new Promise((done) => { socket.onopen = () => done("open"); socket.onerror = () => done("") });
  const read = await fetch(url + "/sessions", {credentials: "include"}).then(() => "read", () => "");
  const sent = {method: "POST", mode: "no-cors", credentials: "include"};
  return [opened, read, await fetch(url + "/logout", sent).then(() => "sent", () => "")];
}"""


def test_a_wrong_password_is_refused(browser: Browser, system: System) -> None:
    context = new_context(browser, system)
    page = context.new_page()
    page.goto("/sessions")
    log_in(page, "not the password")
    expect(page.get_by_test_id("login-problem")).to_have_text("That is not the password.")
    screenshot(page, "login")
    page.goto("/")
    expect(page).to_have_url(f"{system.url}/login")
    context.close()


@pytest.mark.parametrize("path", ["/", "/launch", "/sessions", "/session/x", "/compare", "/session/x/model"])
def test_there_is_nothing_without_a_login(browser: Browser, system: System, path: str) -> None:
    context = new_context(browser, system)
    page = context.new_page()
    page.goto(path)
    expect(page.get_by_test_id("password")).to_be_visible()
    assert "site-1" not in page.content()
    assert context.request.get(path, headers={"accept": "*/*"}, max_redirects=0).status == 401
    context.close()


def test_a_page_of_another_origin_gets_nothing(user: BrowserContext, system: System, page: Page) -> None:
    user.route(f"{EVIL}/**", lambda route: route.fulfill(body="<h1>evil</h1>", content_type="text/html"))
    evil = user.new_page()
    evil.goto(f"{EVIL}/")
    assert evil.evaluate(ATTACK, system.url)[:2] == ["", ""]
    evil.close()
    page.goto("/sessions")  # and the user is still logged in
    expect(page.get_by_role("heading", name="Sessions")).to_be_visible()


@pytest.mark.parametrize("name", ["../x", "..%2f..%2fx", HTML])
def test_names_that_are_none(page: Page, name: str) -> None:
    page.goto(f"/launch?job={name}")
    expect(page.get_by_test_id("job-mnist")).to_be_visible()
    expect(page.get_by_test_id("launch")).to_have_count(0)
    page.goto(f"/launch?clone={name}")
    expect(page.get_by_test_id("no-clone")).to_be_visible()
    page.goto(f"/session/{name}")
    expect(page.locator("[data-testid=no-job], [data-testid=missing]")).to_be_visible()
    assert page.request.get(f"/session/{name}/model").status == 404
    screenshot(page, "missing")


def test_logging_out_ends_it_in_every_tab(browser: Browser, system: System) -> None:
    context = new_context(browser, system)
    page, tab = context.new_page(), context.new_page()
    page.goto("/")
    log_in(page, PASSWORD)
    tab.goto("/sessions")
    expect(tab.get_by_role("heading", name="Sessions")).to_be_visible()
    page.get_by_test_id("logout").click()
    for one in (page, tab):
        expect(one).to_have_url(re.compile("/login"))
    page.goto("/sessions")
    expect(page.get_by_test_id("password")).to_be_visible()
    context.close()
