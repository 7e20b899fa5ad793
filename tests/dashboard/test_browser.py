# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A user's day in a real browser, on a POC that `make dashboard` started: each test goes on where the last one ended.

Screenshots of all pages are left in workspace/screenshots.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, expect

from dashboard.poc import PORTS, in_use
from tests.dashboard.browser import (
    CHROMIUM,
    JOB_MS,
    NO_CHROMIUM,
    PHONE,
    WAIT_MS,
    System,
    at_field,
    choose,
    chromium,
    log_in,
    new_context,
    table,
)
from tests.dashboard.served import PASSWORD
from tests.jobs.flare import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not CHROMIUM, reason=NO_CHROMIUM)]
SCREENSHOTS = ROOT / "workspace" / "screenshots"
ROUNDS = 4
SESSION = re.compile(r"/session/([0-9a-f-]{36})$")
HTML = "<img src=x onerror=alert(1)>"
EVIL = "http://127.0.0.1:1234"  # another origin, but the same site: the browser does send it the strict cookies
ATTACK = """async (url) => {
  const path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket";
  const socket = new WebSocket(url.replace("http", "ws") + path);
  const opened = await new Promise((done) => { socket.onopen = () => done("open"); socket.onerror = () => done("") });
  const read = await fetch(url + "/sessions", {credentials: "include"}).then(() => "read", () => "");
  const sent = {method: "POST", mode: "no-cors", credentials: "include"};
  return [opened, read, await fetch(url + "/logout", sent).then(() => "sent", () => "")];
}"""
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    busy = [port for port in PORTS if in_use(port)]
    if busy:
        pytest.fail(f"a POC needs ports 8002 and 8003; in use: {busy}. Stop what listens there, then run this again.")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    system = System(tmp_path_factory.mktemp("dashboard") / "system")
    try:
        system.wait()
        yield system
    finally:
        left = system.stop()
    assert left == []
    assert system.process.returncode == 0, system.log()
    assert "Traceback" not in system.log()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
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


def screenshot(page: Page, name: str, whole: bool = False) -> None:
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
    expect(page.get_by_test_id("status")).to_contain_text(word, timeout=JOB_MS)
    expect(page.get_by_test_id("result")).to_be_visible()


def jobs(page: Page) -> list[str]:
    """Names and states of all in the store."""
    page.goto("/sessions")
    expect(page.locator("[data-testid=sessions], [data-testid=empty]")).to_be_visible()
    rows = page.get_by_test_id("sessions").locator("tbody tr").all()
    return [" ".join(row.locator("a, .chip > span").all_text_contents()) for row in rows]


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def finished(first: tuple[str, Page]) -> str:
    """Id of the first job, when it has ended."""
    ends(first[1])
    return first[0]


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
