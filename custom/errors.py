# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The one error type that users see: code, where, what was expected, what came, what to do."""

from __future__ import annotations

from typing import Any

from custom.printable import printable

LONGEST = 10_000  # characters of a message


class BundleError(Exception):
    """A problem the user can act on, shown as one paragraph and never as a stack trace.

    What a site or a file says may be in any part of it: the message is printable, on one line, of at most 10,000
    characters.

    Args:
        problem: what is wrong, in a few words.
        code: what kind of problem it is, one of `bundle.error_codes.CODES`. Codes are stable, sentences are not.
        site: name of the site it happened at, if it is about one.
        round_number: training round, counted from 1, if it is about one.
        key: the argument, file or tensor concerned.
        expected: what would have been right.
        got: what came instead.
        remedy: what to do about it.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        code: str,
        site: str = "",
        round_number: int | None = None,
        key: str = "",
        expected: Any = None,
        got: Any = None,
        remedy: str = "",
    ) -> None:
        site, key = printable(site), printable(key)
        where = " ".join(part for part in (site, "" if round_number is None else f"round {round_number}", key) if part)
        clauses = [problem] if problem else []
        if expected is not None:
            clauses.append(f"expected {printable(expected)}, got {printable(got) or repr('')}")
        elif got is not None:
            clauses.append(f"got {printable(got) or repr('')}")
        message = (f"{where}: " if where else "") + ", ".join(clauses)
        super().__init__(printable(message + (f"; {remedy}" if remedy else ""), LONGEST))
        self.code = code
        self.site = site
        self.key = key

    def coded(self) -> str:
        """The message with its code, for logs, terminals and reports: `... [data-missing]`."""
        return f"{self} [{self.code}]"
