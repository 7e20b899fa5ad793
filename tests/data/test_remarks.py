# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a site's data say of themselves, made fit to be sent."""

from __future__ import annotations

import numpy as np

from custom.checks.agreement import check_remarks
from custom.data.remarks import LONGEST, MOST_REASONS, MOST_SENTENCES, OTHERS, Remarks, left_out_line, remarks_of


class Told:
    def __init__(self, left_out: dict[str, int], warnings: list[str], notes: list[str]) -> None:
        self.left_out, self.data_warnings, self.data_notes = lambda: left_out, lambda: warnings, lambda: notes


def test_data_need_not_say_anything() -> None:
    assert remarks_of(object()) == Remarks({}, [], [])


def test_the_most_frequent_reason_comes_first_and_empty_ones_are_dropped() -> None:
    remarks = remarks_of(Told({"few": 2, "none": 0, "many": np.int64(30)}, ["careful"], ["as it is"]))
    assert list(remarks.left_out.items()) == [("many", 30), ("few", 2)]
    assert all(type(count) is int for count in remarks.left_out.values())
    assert (remarks.warnings, remarks.notes) == (["careful"], ["as it is"])
    assert left_out_line(remarks.left_out) == "many: 30; few: 2"


def test_whatever_they_say_can_be_sent() -> None:
    """No count is lost: 1 + 2 + ... + 100 = 5050."""
    remarks = remarks_of(Told({f"reason {n}\x1b\n": n for n in range(1, 101)}, ["x" * 999] * 99, ["\x07"]))
    check_remarks("site-1", remarks.left_out, remarks.warnings, remarks.notes)
    assert sum(remarks.left_out.values()) == 5050
    assert len(remarks.left_out) == MOST_REASONS
    assert remarks.left_out[OTHERS] == sum(range(1, 101 - (MOST_REASONS - 1)))
    assert (len(remarks.warnings), len(remarks.warnings[0])) == (MOST_SENTENCES, LONGEST)
