# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Who is logged in, and how often somebody may try: kept in memory, so a restart logs everybody out."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dashboard.passwords import matches

IDLE_S = 12 * 3600.0
MOST_LOGINS = 500  # the one that was used least recently goes
MOST_BUCKETS = 10_000
TOKEN_BYTES = 32
IPV6_PREFIX = 64  # what one customer of a provider has
Clock = Callable[[], float]


@dataclass
class Login:
    """One browser that has given the password.

    Attributes:
        used: when it last asked for something.
        ended: set when it is over, so that open connections can be closed.
    """

    used: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Logins:
    """All browsers that are logged in. Only the hash of a token is kept."""

    def __init__(self, idle_s: float = IDLE_S, clock: Clock = time.monotonic) -> None:
        self._idle_s, self._clock = idle_s, clock
        self._logins: dict[str, Login] = {}

    def open(self) -> str:
        """A new login; returns the token for the cookie."""
        for key in [key for key, login in self._logins.items() if not self.alive(login)]:
            self._end(key)
        if len(self._logins) >= MOST_LOGINS:
            self._end(min(self._logins, key=lambda key: self._logins[key].used))
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._logins[_digest(token)] = Login(self._clock())
        return token

    def find(self, token: str) -> Login | None:
        """The login of a token, if it is not over."""
        login = self._logins.get(_digest(token))
        if login is not None and not self.alive(login):
            self._end(_digest(token))
            return None
        return login

    def alive(self, login: Login) -> bool:
        """Is it neither ended nor idle for too long?"""
        return not login.ended.is_set() and self._clock() - login.used < self._idle_s

    def touch(self, login: Login) -> None:
        """Somebody has done something."""
        login.used = self._clock()

    def close(self, token: str) -> None:
        """Logs out."""
        if _digest(token) in self._logins:
            self._end(_digest(token))

    def close_all(self) -> None:
        """Logs everybody out."""
        for key in list(self._logins):
            self._end(key)

    def _end(self, key: str) -> None:
        self._logins.pop(key).ended.set()


class Attempts:
    """Lets `burst` attempts through at once, and then one every `every_s` seconds, for each key by itself.

    An attempt that has to wait costs nothing, so nobody stays locked out for longer than `every_s`.
    """

    def __init__(self, burst: int, every_s: float, clock: Clock = time.monotonic) -> None:
        self._burst, self._every_s, self._clock = burst, every_s, clock
        self._full_at: dict[str, float] = {}  # when a key will have all its attempts again

    def wait(self, key: str) -> float:
        """Seconds until there is an attempt; 0 if there is one."""
        now = self._clock()
        return max(self._full_at.get(key, now) - now - (self._burst - 1) * self._every_s, 0.0)

    def take(self, key: str) -> None:
        """Uses up an attempt, of which there must be one."""
        now = self._clock()
        if len(self._full_at) >= MOST_BUCKETS:
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}
        self._full_at[key] = max(self._full_at.get(key, now), now) + self._every_s

    def give_back(self, key: str) -> None:
        """The attempt was a success."""
        self._full_at[key] = self._full_at.get(key, 0.0) - self._every_s


class Gate:
    """Checks passwords, and slows guessing down without ever keeping the right people out.

    A browser that has logged in before holds a device cookie, and has attempts of its own. All others share those of
    their address, and those of everybody; so a stranger can use up what strangers have, and no more.

    Args:
        hashed: of the password, see `dashboard.passwords`; may be changed later.
        clock: for tests.
    """

    def __init__(self, hashed: str, clock: Clock = time.monotonic) -> None:
        self.hashed = hashed
        self._each, self._strangers = Attempts(5, 12.0, clock), Attempts(30, 2.0, clock)

    def wait(self, address: str, device: str) -> float:
        """Seconds to wait before the next attempt; 0 uses one up."""
        known = self.knows(device)
        attempts = [(self._each, device)] if known else [(self._each, _network(address)), (self._strangers, "")]
        wait = max(counted.wait(key) for counted, key in attempts)
        if not wait:
            for counted, key in attempts:
                counted.take(key)
        return wait

    def admits(self, password: str, address: str, device: str) -> bool:
        """Is it the right password? Takes about 0.2 s: for a thread."""
        if not matches(password, self.hashed):
            return False
        self._each.give_back(device if self.knows(device) else _network(address))
        return True

    def new_device(self) -> str:
        """The cookie for a browser that has just logged in; no longer valid when the password changes."""
        name = secrets.token_urlsafe(TOKEN_BYTES // 2)
        return f"{name}.{self._sign(name)}"

    def knows(self, device: str) -> bool:
        """Is it a cookie that this password has signed?"""
        name, _, signature = device.partition(".")
        return bool(name) and hmac.compare_digest(signature.encode(), self._sign(name).encode())

    def _sign(self, name: str) -> str:
        return hmac.new(self.hashed.encode(), b"device " + name.encode(), hashlib.sha256).hexdigest()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
    return str(parsed)
