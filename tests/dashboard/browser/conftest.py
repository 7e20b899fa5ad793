# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""One system, browser and user for all tests of this folder: each goes on where the last one ended, by file name.

Screenshots of all pages are left in workspace/screenshots.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, expect

from dashboard.poc import PORTS, in_use
from tests.dashboard.browser.pages import (
    CHROMIUM,
    NO_CHROMIUM,
    ROUNDS,
    choose,
    chromium,
    ends,
    launch,
    log_in,
    new_context,
    screenshot,
)
from tests.dashboard.browser.system import System


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    if not CHROMIUM:
        pytest.skip(NO_CHROMIUM)
    busy = [port for port in PORTS if in_use(port)]
    if busy:
        pytest.fail(f"a POC needs ports 8002 and 8003; in use: {busy}. Stop what listens there, then run this again.")
    system = System(tmp_path_factory.mktemp("dashboard") / "system")
    try:
        system.wait()
        yield system
    finally:
        left = system.stop()
    assert left == []
    assert system.process.returncode == 0, system.log()
    assert "Traceback" not in system.log()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def user(browser: Browser, system: System) -> Iterator[BrowserContext]:
    """The browser of somebody who has logged in."""
    context = new_context(browser, system)
    page = context.new_page()
    page.goto("/")
    log_in(page)
    expect(page.get_by_role("heading", name="Network")).to_be_visible()
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(user: BrowserContext) -> Iterator[Page]:
    """A page of the user; nothing may go wrong in its scripts, and no foreign one may run."""
    page, wrong = user.new_page(), list[str]()

    def dismiss(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and "status of 404" not in message.text:
            wrong.append(message.text)

    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", dismiss)
    page.on("console", note)
    yield page
    page.close()
    assert wrong == []


@pytest.fixture(scope="package")
def first(user: BrowserContext) -> tuple[str, Page]:
    """Id and page of the first job, which is launched here and may still run."""
    page = user.new_page()
    page.goto("/")
    page.get_by_test_id("nav-launch").click()
    page.get_by_test_id("job-mnist").click()
    page.get_by_test_id("field-num_rounds").fill(str(ROUNDS))
    page.get_by_test_id("field-local_epochs").fill("3")
    page.get_by_test_id("field-local_lr").fill("0.01")
    choose(page, "field-dataset", "digits")
    expect(page.get_by_test_id("site-site-1")).to_be_checked()
    screenshot(page, "launch-form")
    return launch(page), page


@pytest.fixture(scope="package")
def finished(first: tuple[str, Page]) -> str:
    """Id of the first job, when it has ended."""
    ends(first[1])
    return first[0]
