# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Two calls with one token are one, at the same time or one after the other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from custom.errors import BundleError
from dashboard import once
from dashboard.once import Once


class Work:
    """Counts its calls, and waits until it may end."""

    def __init__(self) -> None:
        self.calls = 0
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.calls += 1
        self.has_begun.set()
        assert self.may_end.wait(10)
        return f"job {self.calls}"


def test_many_calls_at_once_are_one() -> None:
    once, work = Once(), Work()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(once.do, "a", 1, work) for _ in range(8)]
        work.may_end.set()
        assert [call.result() for call in calls] == ["job 1"] * 8
    assert once.do("a", 1, work) == "job 1"
    assert once.do("b", 1, work) == "job 2"


def test_two_tokens_do_not_wait_for_each_other() -> None:
    once, work = Once(), Work()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(once.do, "a", 1, work)
        assert once.do("b", 1, lambda: "quick") == "quick"
        assert not slow.done()
        work.may_end.set()
        assert slow.result() == "job 1"


def test_all_who_wait_get_the_error_and_it_can_be_tried_again() -> None:
    once, work = Once(), Work()

    def fail() -> str:
        work()
        raise BundleError("no", code="setting-value")

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(once.do, "a", 1, fail) for _ in range(4)]
        assert work.has_begun.wait(10)
        work.may_end.set()
        for call in calls:
            with pytest.raises(BundleError, match=r"^no$"):
                call.result()
    assert once.do("a", 2, lambda: "now") == "now"


def test_a_token_is_good_for_one_thing() -> None:
    once = Once()
    once.do("a", {"x": 1}, lambda: "one")
    with pytest.raises(BundleError, match="launched another job") as caught:
        once.do("a", {"x": 2}, lambda: "two")
    assert caught.value.key == "token"


def test_old_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "REMEMBERED", 2)
    remembering = Once()
    for token in "abc":
        remembering.do(token, 1, lambda: "first")
    assert remembering.do("c", 1, lambda: "second") == "first"
    assert remembering.do("a", 1, lambda: "second") == "second"
