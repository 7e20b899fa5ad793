# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from custom.errors import BundleError
from custom.printable import (
    LONGEST,
    LONGEST_NAME,
    decimals,
    is_label,
    printable,
    printable_all,
    printable_lines,
    shown,
)
from tests.hostile import EVIL, LONG, READABLE, fit


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("as it is  here", "as it is  here"),
        (READABLE, READABLE),
        ("a\r\n  b\tc\x85d", "a b c d"),
        ("\x1b[31mred\x07\x9b", "?[31mred??"),
        ("left\u202eright\u200bzero\ud800", "left?right?zero?"),
        ("\u00a0\u3000wide", "wide"),
        (None, "None"),
    ],
)
def test_one_line_that_is_printable(text: object, line: str) -> None:
    assert printable(text) == line


@pytest.mark.parametrize("text", [EVIL, LONG, EVIL * 100_000, "\n" * 10**6, " \x1b" * 10**6])
def test_whatever_comes_is_short_and_printable_and_stays_as_it_is_the_second_time(text: str) -> None:
    line = printable(text)
    assert line.isprintable()
    assert len(line) <= LONGEST
    assert printable(line) == line
    assert all(line.isprintable() for line in printable_lines(text[:5000]).split("\n"))


@pytest.mark.parametrize(
    "value",
    [
        EVIL,
        LONG,
        [EVIL] * 9,
        {EVIL: {EVIL: EVIL}},
        np.array([[1], [2]]),
        10**400,
        {"a": [[[[[LONG]]]]]},
        EVIL.encode("utf-8", "surrogatepass"),
    ],
)
def test_any_value_is_shown_in_a_short_line(value: Any) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) <= LONGEST_NAME


def test_every_part_of_an_error_is_printable() -> None:
    parts = {"site": EVIL, "key": EVIL, "expected": EVIL, "got": LONG, "remedy": EVIL}
    error = BundleError(EVIL, code="reply-malformed", **parts)  # type: ignore[arg-type]
    assert fit(error.coded(), 12_000)
    assert error.coded().endswith("[reply-malformed]")
    assert error.key.isprintable()
    assert error.site.isprintable()


@dataclass(frozen=True)
class Point:
    name: str
    values: dict[str, list[Any]]


def test_texts_within_a_value_are_made_printable_and_all_else_stays() -> None:
    point = Point("a\x1b", {"b\n": [1, None, 0.5, ("c\x07", True)], READABLE: [READABLE]})
    assert printable_all(point) == Point("a?", {"b": [1, None, 0.5, ("c?", True)], READABLE: [READABLE]})


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("val_accuracy", True),
        (READABLE, True),
        ("x" * 100, True),
        ("x" * 101, False),
        ("", False),
        ("a\n", False),
        (5, False),
    ],
)
def test_names(value: Any, named: bool) -> None:
    assert is_label(value) is named


@pytest.mark.parametrize(
    ("value", "text"), [(0.85, "0.850"), (-1.0, "-1.000"), (9_999_999.0, "9999999.000"), (1e308, "1.000e+308")]
)
def test_no_number_takes_three_hundred_digits(value: float, text: str) -> None:
    assert decimals(value, 3) == text
