# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Phones."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.dashboard.browser.pages import (
    PHONE,
    new_context,
    screenshot,
)
from tests.dashboard.browser.system import System

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phones(browser: Browser, system: System, user: BrowserContext, finished: str, scheme: str) -> None:
    """Nothing is wider than the screen."""
    context = new_context(browser, system, PHONE, color_scheme=scheme, storage_state=user.storage_state())
    page = context.new_page()
    ready: dict[str, Callable[[Page], None]] = {
        "/": lambda page: expect(page.get_by_test_id("client-site-2")).to_be_visible(),
        "/launch?job=mnist": lambda page: expect(page.get_by_test_id("site-site-2")).to_be_visible(),
        "/sessions": lambda page: expect(page.get_by_test_id("sessions")).to_be_visible(),
        f"/session/{finished}": lambda page: expect(page.get_by_test_id("heat-map")).to_be_visible(),
    }
    for path, wait in ready.items():
        page.goto(path)
        wait(page)
        name = re.split(r"[/?]", path)[1] or "network"
        screenshot(page, f"phone-{name}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    context.close()
