# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A real browser on a real FLARE system: `make dashboard` as a process, its sites, and how to look at its pages."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize, sync_playwright

from tests.dashboard.served import PASSWORD, free_port
from tests.jobs.flare import ROOT, environment

CHROMIUM = shutil.which("chromium") or ""
NO_CHROMIUM = "chromium is not installed: apt-get install --no-install-recommends chromium"
START_S, STOP_S = 400.0, 200.0  # about 30 s and 20 s where nothing else runs
WAIT_MS, JOB_MS = 60_000, 300_000
LAPTOP, PHONE = (1280, 800), (390, 844)
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


class System:
    """What `make dashboard` starts, in a home and a workspace of its own, without a network.

    Args:
        folder: empty; everything goes there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.kits = folder / "poc" / "poc" / "example_project" / "prod_00"
        (folder / "home").mkdir(parents=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._env = environment(folder / "nothing", HOME=str(folder / "home"), PATH=path)
        command = [sys.executable, "-m", "dashboard", "--set-password"]
        subprocess.run(command, cwd=ROOT, env=self._env, input=f"{PASSWORD}\n", text=True, check=True)
        command = [
            sys.executable,
            "-m",
            "dashboard.local",
            "--workspace",
            str(folder / "poc"),
            "--port",
            str(self.port),
        ]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def wait(self) -> None:
        """Until the login page is there."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log()
            try:
                httpx.get(f"{self.url}/login", timeout=20, trust_env=False)
                return
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError(f"not served after {START_S} s: {self.log()}")

    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def dashboard(self) -> psutil.Process:
        """The process that serves the pages."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "--kit" in child.cmdline())

    def kill(self, name: str) -> None:
        """The server or a site, as a power cut would."""
        script = psutil.Process(int((self.kits / name / "daemon_pid.fl").read_text()))  # it would start it again
        assert str(self.kits / name) in _command(script)
        processes = [script, *script.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)

    def start(self, name: str) -> None:
        """The server or a site, with FLARE's own script; it takes about 10 s to be there."""
        home = self.folder / "poc" / "home"
        with (self.folder / f"{name}.log").open("w") as log:
            subprocess.run(
                ["bash", str(self.kits / name / "startup" / "start.sh")],
                cwd=self.folder / "poc" / "empty",
                env=self._env | {"HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
                start_new_session=True,
            )

    def stop(self) -> list[str]:
        """Ends it as Ctrl-C does, and then by force what is left of it: their command lines, which should be none."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        left = [process for process in psutil.process_iter() if str(self.folder) in _command(process)]
        commands = [_command(process) for process in left]
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)
        return commands


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


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
