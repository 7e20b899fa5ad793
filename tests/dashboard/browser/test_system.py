# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The network page, while all is well and while it is not. Comes last: it restarts the server."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.browser.pages import (
    WAIT_MS,
    jobs,
    screenshot,
)
from tests.dashboard.browser.system import System

pytestmark = pytest.mark.e2e


def test_the_network_has_a_server_and_two_sites(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_test_id("server-status")).to_contain_text("Up")
    expect(page.get_by_test_id("fact-uptime")).to_have_text(re.compile(r"\d+ s"))
    for site in ("site-1", "site-2"):
        card = page.get_by_test_id(f"client-{site}")
        expect(card.get_by_test_id("client-status")).to_contain_text("Connected")
        expect(card.get_by_test_id("client-contact")).to_have_text(re.compile(r"just now|\d+ s ago"))
        expect(card).to_contain_text("GiB used")
    screenshot(page, "network")


def test_a_site_dies_the_server_restarts_and_the_site_comes_back(page: Page, system: System) -> None:
    page.goto("/")
    dead, alive = (
        page.get_by_test_id(f"client-{site}").get_by_test_id("client-status") for site in ("site-1", "site-2")
    )
    expect(dead).to_contain_text("Connected")
    system.kill("site-1")
    expect(dead).to_contain_text("Silent")
    expect(alive).to_contain_text("Connected")
    screenshot(page, "network-silent")

    system.kill("server")
    expect(page.get_by_test_id("banner")).to_contain_text("does not answer")
    expect(page.get_by_test_id("server-status")).to_contain_text("Not reachable")
    screenshot(page, "network-down")
    system.start("server")
    expect(page.get_by_test_id("banner")).to_have_count(0, timeout=2 * WAIT_MS)
    expect(alive).to_contain_text("Connected", timeout=2 * WAIT_MS)
    expect(dead).to_have_count(0)

    system.start("site-1")
    expect(dead).to_contain_text("Connected", timeout=2 * WAIT_MS)
    assert len(jobs(page)) > 0  # the store has outlived it
