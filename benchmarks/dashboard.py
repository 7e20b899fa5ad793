# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The dashboard on a POC with two sites: how soon a page is there, a job is submitted, a round is on screen; the cost.

    python -m benchmarks.dashboard [--json FILE]   (7 minutes; needs chromium, and the ports 8002 and 8003)

FLARE's store holds 100 jobs, aborted before they ran. A page is ready when its rows are in it, counted by the browser's
own clock from the navigation on: cold with nothing in its cache, warm with what the first visit left there. A launch
takes from the click until FLARE has given the job its id, to whose page the browser is led. A round has ended when the
job's progress.jsonl says so, and is on the screen when it is a row of the table; both clocks are this
machine's. Processor time and memory are those of the dashboard's process alone, while a job trains and browsers look at
it. Those, the FLARE server and both sites run on the same machine, and compete with it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session
from playwright.sync_api import Browser, expect

from benchmarks import machine
from benchmarks.results.dashboard import quantile
from benchmarks.simulate import export
from bundle.events import read_events
from custom.events import RoundEnded, of_kind
from tests.dashboard.browser.pages import (
    CHROMIUM,
    JOB_MS,
    NO_CHROMIUM,
    choose,
    chromium,
    launch,
    log_in,
    new_context,
)
from tests.dashboard.browser.system import System

TARGETS = {"page_s": 1.0, "launch_s": 3.0, "round_s": 2.0, "rss_mb": 200.0, "cpu_share": 0.05}
PAGES = {"network": ("/", "[data-testid^=client-site-]", 2), "sessions": ("/sessions", "[data-testid=sessions] a", 25)}
ROUNDS, EPOCHS = 12, 4
NOBODY = 99  # sites that a job waits for
READY = """
new MutationObserver((_, observer) => {
  if (document.querySelectorAll("%s").length < %d) return;
  window.ready = performance.now();
  observer.disconnect();
}).observe(document, {subtree: true, childList: true});
"""
# What earlier documents of this tab have seen: a page loads itself again when its connection was lost for too long.
BEFORE = """
window.before = JSON.parse(sessionStorage.getItem("seen") ?? "[]");
addEventListener("pagehide", () => sessionStorage.setItem("seen", JSON.stringify([...window.before, ...window.seen])));
"""
ENDED = "() => !['', 'Waiting', 'Starting', 'Running'].includes(window.seen.at(-1)?.[1] ?? '')"
State = Any  # Playwright's: the cookies of a login


class Cost:
    """Processor time and the largest memory of a process, from the start of the thread to its end."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._over = process, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.rss_mb, self._from, self._used = 0.0, time.monotonic(), self._cpu_s()
        self._thread.start()

    def end(self) -> dict[str, float]:
        """Seconds that it was watched, share of one core, and MB."""
        used, seconds = self._cpu_s() - self._used, time.monotonic() - self._from
        self._over.set()
        self._thread.join()
        return {"seconds": seconds, "cpu_share": used / seconds, "rss_mb": self.rss_mb}

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            self.rss_mb = max(self.rss_mb, self._process.memory_info().rss / 1e6)


def fill_store(session: Session, folder: Path, jobs: int) -> None:
    """Jobs that wait for sites that there are not, aborted at once."""
    job = export("mnist", folder / "mnist", ["dataset=digits"])
    meta = json.loads((job / "meta.json").read_text())
    (job / "meta.json").write_text(json.dumps(meta | {"min_clients": NOBODY}))
    first = session.submit_job(str(job))
    ids = [first, *(session.clone_job(first) for _ in range(jobs - 1))]
    for job_id in ids:
        session.abort_job(job_id)


def loads(browser: Browser, system: System, state: State, name: str, times: int) -> dict[str, list[float]]:
    """Seconds until a page is ready, in a new browser each, and again in the same one."""
    path, selector, rows = PAGES[name]
    seconds: dict[str, list[float]] = {"cold_s": [], "warm_s": []}
    for _ in range(times):
        context = new_context(browser, system, storage_state=state)
        page = context.new_page()
        page.add_init_script(READY % (selector, rows))
        for kind in seconds.values():
            page.goto(path)
            page.wait_for_function("window.ready")
            kind.append(page.evaluate("window.ready") / 1000)
            page.goto("about:blank")
        context.close()
    return seconds


def launches(browser: Browser, system: System, state: State, session: Session, times: int) -> list[float]:
    """Seconds from each click until the job is submitted. It is aborted then."""
    page, seconds = new_context(browser, system, storage_state=state).new_page(), []
    for _ in range(times):
        page.goto("/launch")
        page.get_by_test_id("job-mnist").click()
        choose(page, "field-dataset", "digits")
        started = time.monotonic()
        job_id = launch(page)
        seconds.append(time.monotonic() - started)
        session.abort_job(job_id)
        expect(page.get_by_test_id("status")).to_contain_text("Aborted", timeout=JOB_MS)
    page.context.close()
    return seconds


def watch(browser: Browser, system: System, state: State, session: Session, job: Path, browsers: int) -> dict[str, Any]:
    """Runs a job with that many browsers on its page; what they saw when, and what the dashboard needed."""
    contexts = [new_context(browser, system, storage_state=state) for _ in range(browsers)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.add_init_script(BEFORE)
        page.goto("/sessions")
    job_id = session.submit_job(str(job))
    for page in pages:
        page.goto(f"/session/{job_id}", wait_until="commit")
    for page in pages:
        page.wait_for_function("() => window.seen.some((now) => now[1] === 'Running')", timeout=JOB_MS)
    ready = time.time()
    cost = Cost(system.dashboard())
    pages[0].wait_for_function(f"() => window.seen.at(-1)[2] >= {ROUNDS}", timeout=JOB_MS)
    spent = cost.end()
    for page in pages:
        page.wait_for_function(ENDED, timeout=JOB_MS)
    pages[0].get_by_test_id("result").wait_for()  # the dashboard has downloaded it
    seen = [page.evaluate("[...window.before, ...window.seen]") for page in pages]
    reloads = sum(page.evaluate("performance.timeOrigin") / 1000 > ready for page in pages)
    for context in contexts:
        context.close()
    results = system.folder / "home" / ".cache" / "flare-dashboard" / "results" / job_id
    ends = [event.time for event in of_kind(read_events(results / "workspace" / "progress.jsonl"), RoundEnded)]
    rounds = [(number, end) for number, end in enumerate(ends, start=1) if end > ready]
    delays = [delay(states, number, end) for states in seen for number, end in rounds]
    round_s = (ends[-1] - ends[0]) / (len(ends) - 1)
    return {"rounds": len(rounds), "round_s": round_s, "delays_s": delays, "reloads": reloads, **spent}


def delay(states: list[list[Any]], number: int, end: float) -> float:
    """Seconds from the end of a round to when a browser first showed it."""
    return float(next(at for at, _, rounds, _ in states if rounds >= number)) / 1000 - end


def measure(system: System, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Everything."""
    result: dict[str, Any] = {"jobs": args.jobs, "pages": {}, "watched": {}}
    session = new_secure_session("admin@nvidia.com", str(system.kits / "admin@nvidia.com"))
    try:
        fill_store(session, folder, args.jobs)
        job = export("mnist", folder / "job", ["dataset=digits", f"num_rounds={ROUNDS}", f"local_epochs={EPOCHS}"])
        with chromium() as browser:
            context = new_context(browser, system)
            page = context.new_page()
            page.goto("/sessions")
            log_in(page)
            page.get_by_test_id("sessions").wait_for()
            state = context.storage_state()
            context.close()
            for name in PAGES:
                result["pages"][name] = loads(browser, system, state, name, args.loads)
                show_page(name, result["pages"][name])
            result["launch_s"] = launches(browser, system, state, session, args.launches)
            show_launches(result["launch_s"])
            for browsers in args.browsers:
                entry = watch(browser, system, state, session, job, browsers)
                result["watched"][str(browsers)] = entry
                show_watched(browsers, entry)
    finally:
        session.close()
    return result


def show_page(name: str, seconds: dict[str, list[float]]) -> None:
    """A line."""
    texts = [f"{kind[:-2]} {statistics.median(s):.2f} s (worst {max(s):.2f})" for kind, s in seconds.items()]
    print(f"{name}: {', '.join(texts)}; target {TARGETS['page_s']:g} s", flush=True)


def show_launches(seconds: list[float]) -> None:
    """A line."""
    median = f"{statistics.median(seconds):.2f} s (worst {max(seconds):.2f})"
    print(f"launch, click to submitted: {median}; target {TARGETS['launch_s']:g} s", flush=True)


def show_watched(browsers: int, entry: dict[str, Any]) -> None:
    """A line."""
    delays = entry["delays_s"]
    seen = f"{statistics.median(delays):.2f} s (95 % {quantile(delays):.2f}, worst {max(delays):.2f})"
    print(
        f"{browsers} browser(s), rounds of {entry['round_s']:.1f} s: seen after {seen}, target {TARGETS['round_s']:g}; "
        f"{100 * entry['cpu_share']:.1f} % of a core, target {100 * TARGETS['cpu_share']:g}; {entry['rss_mb']:.0f} MB, "
        f"target {TARGETS['rss_mb']:g}; {entry['reloads']} reloads",
        flush=True,
    )


def main() -> None:
    """Prints a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--jobs", type=int, default=100, help="in FLARE's store (default 100)")
    parser.add_argument("--loads", type=int, default=9, help="of each page (default 9)")
    parser.add_argument("--launches", type=int, default=5, help="(default 5)")
    parser.add_argument("--browsers", type=int, nargs="+", default=[1, 20], help="at once (default 1, then 20)")
    args = parser.parse_args()
    if not CHROMIUM:
        sys.exit(NO_CHROMIUM)
    with tempfile.TemporaryDirectory() as folder:
        system = System(Path(folder) / "system")
        try:
            system.wait()
            result = measure(system, Path(folder), args)
        finally:
            system.stop()
    result = {"machine": machine.describe(), "targets": TARGETS, **result}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
