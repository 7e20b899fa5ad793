# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a user does in the dashboard's pages, and reads there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize, expect, sync_playwright

from tests.dashboard.browser.system import System
from tests.dashboard.served import PASSWORD
from tests.jobs.flare import ROOT

CHROMIUM = shutil.which("chromium") or ""
NO_CHROMIUM = "chromium is not installed: apt-get install --no-install-recommends chromium"
SCREENSHOTS = ROOT / "workspace" / "screenshots"
WAIT_MS, JOB_MS = 60_000, 300_000
LAPTOP, PHONE = (1280, 800), (390, 844)
SESSION = re.compile(r"/session/([0-9a-f-]{36})$")
ROUNDS = 4  # of the first job
HTML = "<img src=x onerror=alert(1)>"
# What a page shows of a job at each moment: [milliseconds, status, rounds in the table, points of the global curve].
RECORDER = """
window.seen = [];
const look = () => {
  const rows = [...document.querySelectorAll("[data-testid=rounds] tbody tr td:first-child")];
  const curve = document.querySelector("[data-testid=curves] path[stroke='var(--chart-global)'][stroke-width='3.5']");
  const status = document.querySelector("[data-testid=status] span")?.textContent ?? "";
  const rounds = rows.filter((cell) => /^[0-9]/.test(cell.textContent.trim())).length;
  const now = [status, rounds, (curve?.getAttribute("d") ?? "").split("L").length];
  if (JSON.stringify(now) !== JSON.stringify(window.seen.at(-1)?.slice(1))) window.seen.push([Date.now(), ...now]);
};
new MutationObserver(look).observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
"""
expect.set_options(timeout=WAIT_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def new_context(browser: Browser, system: System, size: tuple[int, int] = LAPTOP, **options: Any) -> BrowserContext:
    """Somebody's browser, that has not logged in; times are those of UTC."""
    viewport: ViewportSize = {"width": size[0], "height": size[1]}
    context = browser.new_context(base_url=system.url, viewport=viewport, timezone_id="UTC", **options)
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(RECORDER)
    return context


def log_in(page: Page, password: str = PASSWORD) -> None:
    """From the login page, wherever that leads to."""
    page.get_by_test_id("password").fill(password)
    page.get_by_test_id("login").click()


def choose(page: Page, field: str, option: str) -> None:
    """An option of a list."""
    page.get_by_test_id(field).click()
    page.get_by_role("option", name=option, exact=True).click()


def table(page: Page, name: str) -> list[list[str]]:
    """The cells of its rows, without the header, when it is there."""
    rows = page.get_by_test_id(name).locator("tbody tr")
    rows.first.wait_for()
    return [[cell.strip() for cell in row.locator("td").all_text_contents()] for row in rows.all()]


def at_field(page: Page, field: str) -> Locator:
    """The field with all that belongs to it, such as its message."""
    return page.locator(".q-field", has=page.get_by_test_id(field))


def screenshot(page: Page, name: str, whole: bool = False) -> None:
    """Into workspace/screenshots, for a look at it."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_function("document.fonts.status == 'loaded'")
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole, animations="disabled")


def launch(page: Page, *, times: int = 1) -> str:
    """Presses the button; the id of the job whose page that leads to."""
    page.get_by_test_id("launch").click(click_count=times)
    expect(page).to_have_url(SESSION, timeout=JOB_MS)
    found = SESSION.search(page.url)
    assert found
    return found[1]


def ends(page: Page, word: str = "Completed") -> None:
    """The job of the page is waited for."""
    expect(page.get_by_test_id("status")).to_contain_text(word, timeout=JOB_MS)
    expect(page.get_by_test_id("result")).to_be_visible()


def jobs(page: Page) -> list[str]:
    """Names and states of all in the store."""
    page.goto("/sessions")
    expect(page.locator("[data-testid=sessions], [data-testid=empty]")).to_be_visible()
    rows = page.get_by_test_id("sessions").locator("tbody tr").all()
    return [" ".join(row.locator("a, .chip > span").all_text_contents()) for row in rows]
