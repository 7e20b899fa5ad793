# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What is asked for twice with one token, in a double click or from two browsers, is done once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from custom.errors import BundleError

REMEMBERED = 1000


@dataclass(frozen=True)
class _Asked:
    what: Any
    answer: Future[str] = field(default_factory=Future)


class Once:
    """Remembers what was done, by token. What failed is forgotten, so that it can be tried again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, _Asked] = {}

    def do(self, token: str, what: Any, work: Callable[[], str]) -> str:
        """The result of `work`, which runs in the first call with that token; another call waits for that one.

        Args:
            token: the same for what is to be done once.
            what: compared with that of the first call.
            work: may raise; then all who wait for it get its error.

        Raises:
            BundleError: the token has been used for something else.
        """
        with self._lock:
            first = self._asked.get(token)
            asked = first or self._asked.setdefault(token, _Asked(what))
            if len(self._asked) > REMEMBERED:
                del self._asked[next(iter(self._asked))]
        if first is None:
            self._do(token, asked, work)
        elif first.what != what:
            problem = "this form has launched another job meanwhile"
            raise BundleError(
                problem, code="launch-repeated", key="token", remedy="load the page again to launch one more"
            )
        return asked.answer.result()

    def _do(self, token: str, asked: _Asked, work: Callable[[], str]) -> None:
        try:
            asked.answer.set_result(work())
        except BaseException as error:
            with self._lock:
                self._asked.pop(token, None)
            asked.answer.set_exception(error)
