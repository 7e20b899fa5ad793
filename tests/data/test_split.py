# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Shares of the official samples, and what is set aside of them."""

from __future__ import annotations

import numpy as np
import pytest

from custom.data.split import Split
from custom.errors import BundleError

ROSTER = ["site-2", "site-1", "site-3"]
LABELS = np.arange(120) % 4, np.arange(24) % 4


@pytest.mark.parametrize(("partition", "classes"), [("iid", None), ("dirichlet", None), ("k_classes", 3)])
def test_every_sample_is_in_one_split_of_one_site(partition: str, classes: int | None) -> None:
    split = Split(partition, 1.0, 0.1, classes)
    held = [split.of_site(name, ROSTER, 5, LABELS, 4) for name in ROSTER]
    training = np.concatenate([rows[name] for rows in held for name in ("train", "validation")])
    assert sorted(training) == list(range(120))
    assert sorted(np.concatenate([rows["test"] for rows in held])) == list(range(24))
    for rows in held:
        assert all(np.all(np.diff(part) > 0) for part in rows.values())
        assert len(rows["validation"]) == round(0.1 * (len(rows["train"]) + len(rows["validation"])))


def test_a_site_with_data_of_its_own_holds_all_whatever_the_roster_says() -> None:
    split = Split("none", 1.0, 0.25)
    rows = split.of_site("a stranger", ROSTER, 5, LABELS, 4)
    assert not split.shared
    assert [len(rows[name]) for name in ("train", "validation", "test")] == [90, 30, 24]


@pytest.mark.parametrize(
    ("split", "problem"),
    [
        (Split("k_classes", 1.0, 0.1), "partition: expected one of iid, dirichlet, none, got 'k_classes'"),
        (Split("iid", 0.0, 0.1, alpha_key="beta"), "beta: expected a finite number above 0, got 0.0"),
        (Split("iid", 1.0, 1.0), "validation_fraction: expected a number between 0 and 1, got 1.0"),
        (Split("iid", 1.0, 0.1, 11), "classes_per_site: expected an integer from 1 to 10, got 11"),
    ],
)
def test_settings_out_of_range(split: Split, problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        split.check()


def test_what_the_user_may_change_is_said() -> None:
    with pytest.raises(BundleError, match=r"site-1.*of which 0.001 is 0.*ask for more"):
        Split("iid", 1.0, 0.001).of_site("site-1", ROSTER, 5, LABELS, 4, "ask for more")
