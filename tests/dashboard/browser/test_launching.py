# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The form, where something is wrong with it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.browser.pages import (
    HTML,
    at_field,
    jobs,
    screenshot,
)

pytestmark = pytest.mark.e2e


def test_what_is_out_of_range_is_shown_at_its_field_and_not_launched(page: Page) -> None:
    before = jobs(page)
    page.goto("/launch")
    expect(page.get_by_test_id("job-mnist")).to_contain_text("FedAvg")
    screenshot(page, "launch")
    page.get_by_test_id("job-mnist").click()
    page.get_by_test_id("field-momentum").fill("1.5")
    page.get_by_test_id("field-num_rounds").fill("0")
    expect(at_field(page, "field-num_rounds")).to_contain_text("expected a whole number, 1 or more")
    expect(at_field(page, "field-momentum")).to_contain_text("expected 0 to 0.999")
    page.get_by_test_id("field-num_rounds").evaluate("field => { field.type = 'text' }")
    page.get_by_test_id("field-num_rounds").fill(HTML)
    page.get_by_test_id("launch").click()
    expect(page.get_by_test_id("launch-problem")).to_contain_text("Momentum: expected 0 to 0.999")
    expect(page.get_by_test_id("launch-problem")).to_contain_text("Rounds: give a value: 1 or more")
    screenshot(page, "launch-problem")
    assert jobs(page) == before
