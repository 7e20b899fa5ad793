# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Logins end, and guessing is slowed down without keeping the right people out."""

from __future__ import annotations

import pytest

from dashboard.logins import Attempts, Gate, Logins
from dashboard.passwords import hash_password

PASSWORD = "correct horse battery"
HASHED = hash_password(PASSWORD)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_token_is_known_until_it_is_closed() -> None:
    logins = Logins()
    token, other = logins.open(), logins.open()
    login = logins.find(token)
    assert login is not None
    assert logins.find(token[:-1]) is None
    assert logins.find("") is None
    logins.close(token)
    assert login.ended.is_set()  # whoever holds a connection open is told
    assert logins.find(token) is None
    assert logins.find(other) is not None


def test_a_login_ends_after_being_idle(clock: Clock) -> None:
    logins = Logins(idle_s=60, clock=clock)
    token = logins.open()
    clock.now += 59
    login = logins.find(token)
    assert login is not None
    logins.touch(login)
    clock.now += 59
    assert logins.find(token) is login
    clock.now += 2
    assert not logins.alive(login)
    assert logins.find(token) is None
    assert login.ended.is_set()


def test_tokens_are_not_kept_as_they_are() -> None:
    logins = Logins()
    token = logins.open()
    assert token not in str(vars(logins))


def test_attempts_by_hand(clock: Clock) -> None:
    """Three at once, then one every 10 s; what has to wait costs nothing."""
    attempts = Attempts(3, 10.0, clock)

    def try_one(key: str) -> float:
        wait = attempts.wait(key)
        if not wait:
            attempts.take(key)
        return wait

    assert [try_one("a") for _ in range(5)] == [0, 0, 0, 10, 10]
    assert try_one("b") == 0
    clock.now += 4
    assert try_one("a") == 6
    clock.now += 6
    assert [try_one("a"), try_one("a")] == [0, 10]
    attempts.give_back("a")
    assert try_one("a") == 0
    clock.now += 1000
    assert [try_one("a") for _ in range(4)] == [0, 0, 0, 10]


def test_an_address_waits_at_most_a_few_seconds(clock: Clock) -> None:
    gate = Gate(HASHED, clock)
    waits = [gate.wait("10.0.0.1", "") for _ in range(200)]
    assert waits[:5] == [0] * 5
    assert all(0 < wait <= 12 for wait in waits[5:])
    clock.now += max(waits)
    assert gate.wait("10.0.0.1", "") == 0


def test_many_addresses_together_are_slowed_down_but_not_a_known_browser(clock: Clock) -> None:
    gate = Gate(HASHED, clock)
    device = gate.new_device()
    tried = sum(gate.wait(f"10.0.{n // 250}.{n % 250}", "") == 0 for n in range(500))
    assert tried == 30
    waits = [gate.wait("10.9.9.9", "") for _ in range(9)]
    assert waits == [2] * 9  # none of them has cost the address an attempt of its own
    assert gate.wait("10.9.9.9", device) == 0


def test_addresses_of_one_ipv6_network_count_together(clock: Clock) -> None:
    gate = Gate(HASHED, clock)
    waits = [gate.wait(f"2001:db8::{n:x}", "") for n in range(1, 8)]
    assert [wait == 0 for wait in waits] == [True] * 5 + [False] * 2


def test_a_success_costs_no_attempt(clock: Clock) -> None:
    gate = Gate(HASHED, clock)
    for _ in range(8):
        assert gate.wait("10.0.0.1", "") == 0
        assert gate.admits(PASSWORD, "10.0.0.1", "")
    assert not gate.admits("wrong" * 4, "10.0.0.1", "")


def test_a_device_cookie_cannot_be_made_up() -> None:
    gate = Gate(HASHED)
    device = gate.new_device()
    name, _, signature = device.partition(".")
    assert gate.knows(device)
    assert not gate.knows("")
    assert not gate.knows(f"x{name}.{signature}")
    assert not gate.knows(f"{name}.")
    assert not gate.knows("é.é")
    assert not Gate(hash_password(PASSWORD)).knows(device)  # the password was set anew
