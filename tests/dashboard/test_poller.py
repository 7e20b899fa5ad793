# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The poller without a server that answers, and what counts as a change; with a server: test_flare.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.admin_kit import read_kit
from bundle.connection import Connection
from custom.events import Event
from dashboard.poller import Poller
from dashboard.system import Client, Job, Snapshot
from tests.bundle.kits import Authority, write_kit

RUNNING = Job("a", "mnist", "RUNNING", seconds=3.0)
NOW = Snapshot(taken=1000.0, clients=(Client("site-1", last_contact=995.0),), jobs=(RUNNING,))


@pytest.fixture
def poller(tmp_path: Path) -> Poller:
    return Poller(Connection(read_kit(write_kit(tmp_path, Authority("a"), port=1))))


def wait_for(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_a_server_it_says_so_and_goes_on_trying(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.poller.BACKOFF_S", (0.05, 0.1))
    assert poller.snapshot == Snapshot()
    poller.start()
    wait_for(lambda: bool(poller.snapshot.problem))
    assert poller.snapshot.problem == "the FLARE server at 127.0.0.1:1 does not answer; is it running?"
    assert (poller.snapshot.taken, poller.snapshot.version) == (0.0, 1)
    wait_for(lambda: poller._failures > 3)
    assert poller.snapshot.version == 1  # nothing new
    poller.stop(2.0)
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("flare-")])


def test_what_was_known_stays_in_sight_while_the_server_is_away(poller: Poller) -> None:
    poller._publish(NOW)
    wait_s = [poller._failed("gone") for _ in range(6)]
    assert wait_s == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert (poller.snapshot.problem, poller.snapshot.taken, poller.snapshot.jobs) == ("gone", 1000.0, (RUNNING,))


@pytest.mark.parametrize(
    ("after", "new"),
    [
        (replace(NOW, taken=1003.0, jobs=(replace(RUNNING, seconds=6.0),)), False),
        (replace(NOW, taken=1003.0, clients=(Client("site-1", last_contact=1002.0),)), False),
        (replace(NOW, taken=1021.0), True),  # silent
        (replace(NOW, clients=()), True),
        (replace(NOW, clients=(Client("site-1", 995.0, jobs=("a",)),)), True),
        (replace(NOW, jobs=(replace(RUNNING, status="FINISHED:COMPLETED"),)), True),
        (replace(NOW, events={"a": (Event(event="round"),)}), True),
        (replace(NOW, problem="gone"), True),
    ],
)
def test_the_version_grows_with_what_is_worth_drawing(poller: Poller, after: Snapshot, new: bool) -> None:
    poller._publish(NOW)
    before = poller.snapshot.version
    poller._publish(after)
    assert poller.snapshot.version == before + new
    assert poller.snapshot.taken == after.taken
