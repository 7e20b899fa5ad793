# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A job is launched and followed to its result; the next ones build on it."""

from __future__ import annotations

import json
import re
import zipfile

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.dashboard.browser.pages import (
    JOB_MS,
    ROUNDS,
    ends,
    jobs,
    launch,
    log_in,
    new_context,
    screenshot,
    table,
)
from tests.dashboard.browser.system import System

pytestmark = pytest.mark.e2e


def test_the_curve_grows_in_all_browsers(
    browser: Browser, user: BrowserContext, system: System, first: tuple[str, Page]
) -> None:
    """One that has watched from the launch on, one that comes later, and one that loads the page again."""
    job_id, page = first
    other = new_context(browser, system)
    second, third = other.new_page(), user.new_page()
    second.goto(f"/session/{job_id}")
    log_in(second)  # leads to the page that was asked for
    third.goto(f"/session/{job_id}")
    for one in (page, second, third):
        expect(one.get_by_test_id("status")).to_contain_text("Running", timeout=JOB_MS)
        expect(one.get_by_test_id("rounds")).to_be_visible(timeout=JOB_MS)
    third.reload()
    expect(third.get_by_test_id("rounds")).to_be_visible()
    expect(page.get_by_test_id("fact-up")).to_have_text(re.compile(r"[1-9].* kB"))
    page.wait_for_function("seen.at(-1)[2] >= 2")
    screenshot(page, "session-running")
    for one in (page, second, third):
        ends(one)
        running = [count for _, status, count, _ in one.evaluate("seen") if status == "Running"]
        assert running == sorted(running)
        assert any(0 < count < ROUNDS for count in running), running
    points = [count for _, status, _, count in page.evaluate("seen") if status == "Running"]
    assert points == sorted(points)
    assert len(set(points)) >= 3
    assert table(second, "rounds") == table(page, "rounds") == table(third, "rounds")
    third.close()
    other.close()


def test_the_result(page: Page, finished: str) -> None:
    page.goto(f"/session/{finished}")
    expect(page.get_by_test_id("fact-rounds")).to_have_text(f"{ROUNDS} of {ROUNDS}")
    expect(page.get_by_test_id("fact-data-set")).to_have_text("MNIST digits")
    expect(page.get_by_test_id("embedded")).to_contain_text("EMBEDDED DATA SET")
    rows = table(page, "rounds")
    assert [row[0].split()[0] for row in rows] == ["start", *map(str, range(1, ROUNDS + 1))]
    assert float(rows[0][1]) < 0.5 < 0.8 < float(rows[-1][1])
    expect(page.get_by_test_id("heat-map").locator("text", has_text="site-1, its own")).to_be_visible()
    screenshot(page, "session")
    screenshot(page, "session-whole", whole=True)


def test_downloads(page: Page, finished: str) -> None:
    page.goto(f"/session/{finished}")

    def download(name: str) -> str:
        with page.expect_download() as download:
            page.get_by_test_id(f"download-{name}").click()
        return str(download.value.path())

    assert all(zipfile.is_zipfile(download(name)) for name in ("model", "best"))
    with open(download("json"), encoding="utf-8") as file:
        report = json.load(file)
    assert (report["status"], len(report["rounds"]), set(report["cross_site"]["site-1"])) == (
        "completed",
        ROUNDS,
        {"site-1", "site-2"},
    )
    with open(download("csv"), encoding="utf-8") as file:
        assert len(file.read().splitlines()) == 1 + ROUNDS


def test_settings_and_log(page: Page, finished: str) -> None:
    page.goto(f"/session/{finished}")
    page.get_by_test_id("tab-settings").click()
    expect(page.get_by_test_id("settings")).to_contain_text(f"{ROUNDS}  (default 5)")
    expect(page.get_by_test_id("settings")).to_contain_text("digits  (default mnist)")
    screenshot(page, "session-settings")
    page.get_by_test_id("tab-log").click()
    expect(page.get_by_test_id("log")).to_contain_text(f"round {ROUNDS}/{ROUNDS}")
    screenshot(page, "session-log")


def test_the_next_job_starts_where_the_first_ended(page: Page, finished: str) -> None:
    page.goto(f"/session/{finished}")
    last = table(page, "rounds")[-1]
    page.get_by_test_id("clone").click()
    expect(page.get_by_test_id("field-dataset")).to_contain_text("digits")
    expect(page.get_by_test_id("field-num_rounds")).to_have_value(str(ROUNDS))
    page.get_by_test_id("field-num_rounds").fill("1")
    page.get_by_role("button", name="An earlier job").click()
    page.get_by_label("Job", exact=True).click()
    page.get_by_role("option", name=re.compile(f"mnist {finished[:8]}")).click()
    launch(page)
    ends(page)
    start, end = table(page, "rounds")
    assert (start[0], start[1:4]) == ("start", last[1:4])  # of all sites and of each
    assert end[0].startswith("1")
    page.get_by_test_id("tab-settings").click()
    expect(page.get_by_role("link", name=f"mnist ({finished[:8]})")).to_be_visible()


def test_two_jobs_in_one_chart(page: Page, finished: str) -> None:
    assert jobs(page) == ["mnist Completed", "mnist Completed"]
    screenshot(page, "sessions")
    for tick in page.get_by_role("checkbox", name=re.compile("Select mnist")).all():
        tick.click()
    page.get_by_test_id("compare").click()
    expect(page.get_by_test_id("comparison").locator("text", has_text=f"mnist {finished[:8]}")).to_be_visible()
    assert len(table(page, "scores")) == 2
    assert ["num_rounds", "1", str(ROUNDS)] in table(page, "differences")
    screenshot(page, "compare")


def test_three_clicks_launch_a_job_once_and_it_can_be_aborted(page: Page) -> None:
    """The last of the clicks is a double one."""
    before = jobs(page)
    page.get_by_test_id("nav-launch").click()
    page.get_by_test_id("job-mnist").click()
    job_id = launch(page, times=2)
    expect(page.get_by_test_id("status")).to_contain_text("Running", timeout=JOB_MS)
    assert jobs(page) == ["mnist Running", *before]
    page.get_by_test_id(f"session-{job_id}").click()
    page.get_by_test_id("abort").click()
    screenshot(page, "abort")
    page.get_by_test_id("abort-no").click()
    expect(page.get_by_test_id("abort-yes")).to_have_count(0)
    page.get_by_test_id("abort").click()
    page.get_by_test_id("abort-yes").click()
    ends(page, "Aborted")
    expect(page.get_by_test_id("abort")).to_have_count(0)
    assert jobs(page) == ["mnist Aborted", *before]
