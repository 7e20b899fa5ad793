# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the server accepts of a site's remarks about its data."""

from __future__ import annotations

from typing import Any

import pytest

from custom.checks.agreement import check_remarks
from custom.data.remarks import LONGEST, MOST_REASONS, MOST_SENTENCES
from custom.errors import BundleError


def test_counts_by_reason_and_sentences_are_accepted() -> None:
    check_remarks("site-1", {}, [], [])
    check_remarks("site-1", {"x" * LONGEST: 0, "files": 3}, ["a sentence"], ["another"] * MOST_SENTENCES)


@pytest.mark.parametrize(
    ("left_out", "warnings", "notes"),
    [
        (["files"], [], []),
        ({"files": -1}, [], []),
        ({"files": True}, [], []),
        ({"files": 1.0}, [], []),
        ({"two\nlines": 1}, [], []),
        ({"\x1b[31mred": 1}, [], []),
        ({7: 1}, [], []),
        ({"x" * (LONGEST + 1): 1}, [], []),
        ({str(number): 1 for number in range(MOST_REASONS + 1)}, [], []),
        ({}, "a sentence", []),
        ({}, [7], []),
        ({}, [], ["two\nlines"]),
        ({}, [], ["x"] * (MOST_SENTENCES + 1)),
    ],
)
def test_anything_else_is_refused(left_out: Any, warnings: Any, notes: Any) -> None:
    with pytest.raises(BundleError) as error:
        check_remarks("site-1", left_out, warnings, notes)
    assert (error.value.code, error.value.site) == ("reply-malformed", "site-1")
