# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Who is named, after how many rounds; sums by hand."""

from __future__ import annotations

import pytest

from custom.checks.outliers import Outliers

HONEST = {"norm_ratio": 1.0, "cosine": 0.5, "samples_ratio": 1.0}


def named_after(rounds: int, **odd: float) -> dict[tuple[str, str], str]:
    """Three honest sites and site-4, the same in every round: who was found, and when."""
    outliers = Outliers()
    for number in range(1, rounds + 1):
        facts = {f"site-{k}": HONEST for k in (1, 2, 3)}
        outliers.add(f"round {number}", facts | {"site-4": HONEST | odd})
    return {key: outlier.first for key, outlier in outliers.found.items()}


@pytest.mark.parametrize(
    ("ratio", "first"),
    [
        (99.9, "round 1"),
        (8.1, "round 1"),  # log(8.1 / 2) = 1.399 > log 4 = 1.386
        (7.9, "round 2"),
        (4.1, "round 2"),  # 2 log(2.05) = 1.436
        (2.8, "round 5"),  # 4 log 1.4 = 1.346, 5 log 1.4 = 1.682
    ],
)
def test_one_gross_norm_or_several_large_ones(ratio, first):
    assert named_after(10, norm_ratio=ratio) == {("site-4", "norm"): first}
    assert named_after(10, norm_ratio=1.9) == {}


def test_a_site_with_more_samples_may_move_further():
    """Four times the samples excuse 4**1.416 = 7.12 times the norm; 1e5 times nothing, and are named themselves."""
    assert named_after(10, norm_ratio=14.2, samples_ratio=4.0) == {}
    assert named_after(2, norm_ratio=29.0, samples_ratio=4.0) == {("site-4", "norm"): "round 2"}  # 2 log(29/14.24)
    assert named_after(1, norm_ratio=99.0, samples_ratio=1e5) == {
        ("site-4", "norm"): "round 1",
        ("site-4", "samples"): "round 1",
    }
    assert named_after(10, samples_ratio=9.9) == {}


@pytest.mark.parametrize("ratio", [-1.0, 0.0, 5e-324, 1e308])
def test_numbers_that_no_run_has_said(ratio):
    """A file may hold any finite number."""
    assert set(named_after(1, samples_ratio=ratio)) == ({("site-4", "samples")} if ratio > 1 else set())
    assert set(named_after(1, norm_ratio=ratio)) == ({("site-4", "norm")} if ratio > 1 else set())


def test_a_direction_away_from_the_others():
    """Who agree: 0.5 - -0.5 - 0.2 = 0.8 a round, and 1.6 > 1.386. At 0.3 it is as far as honest sites are."""
    assert named_after(3, cosine=-0.5) == {("site-4", "direction"): "round 2"}
    assert named_after(10, cosine=0.3) == {}


@pytest.mark.parametrize(
    ("cosines", "first"),
    [
        ((0.5, 0.5, 0.4), "round 2"),  # away is 2 * 0.1, as at least
        ((0.5, 0.5, 0.35), "round 2"),  # 2 * 0.15: 0.7 a round, 1.4
        ((0.5, 0.5, 0.1), "round 3"),  # 0.4 at most: 0.6 a round
    ],
)
def test_where_the_others_disagree_it_takes_longer(cosines, first):
    outliers = Outliers()
    for number in range(1, 4):
        others = {f"site-{k}": HONEST | {"cosine": cosine} for k, cosine in enumerate(cosines, start=1)}
        outliers.add(f"round {number}", others | {"site-4": HONEST | {"cosine": -0.5}})
    assert {key: outlier.first for key, outlier in outliers.found.items()} == {("site-4", "direction"): first}


def test_a_large_site_may_lie_farther_away():
    """For e times the samples by 0.5: 0.5 - 0.0 - 0.7 < 0; and for as many it is 0.3 a round."""
    assert named_after(20, cosine=0.0, samples_ratio=2.7183) == {}
    assert named_after(20, cosine=0.0) == {("site-4", "direction"): "round 5"}


def test_norm_and_direction_add_up():
    """log(4 / 2) + 0.7 - 0.2 = 1.19 a round; the larger of the two is what is said."""
    assert named_after(1, norm_ratio=4.0, cosine=-0.2) == {}
    assert named_after(2, norm_ratio=4.0, cosine=-0.2) == {("site-4", "norm"): "round 2"}


def test_an_odd_round_now_and_then_is_forgotten():
    """log(4 / 2) = 0.69, and two quiet rounds take 0.8 from it."""
    outliers = Outliers()
    for number in range(1, 31):
        odd = {"norm_ratio": 4.0} if number % 3 == 0 else {}
        outliers.add(f"round {number}", {f"site-{k}": HONEST for k in (1, 2, 3)} | {"site-4": HONEST | odd})
    assert outliers.found == {}


def test_where_all_sites_pull_apart_nobody_is_named():
    """As in late rounds of sites with different classes: cosines of -0.5, all of them."""
    outliers = Outliers()
    for number in range(1, 31):
        outliers.add(f"round {number}", {f"site-{k}": HONEST | {"cosine": -0.5} for k in range(1, 6)})
    assert outliers.found == {}


def test_the_most_extreme_round_is_told_and_found_once():
    outliers = Outliers()
    new = [
        outliers.add(f"round {number}", {"site-1": HONEST, "site-2": HONEST | {"norm_ratio": ratio}})
        for number, ratio in enumerate((9.0, 1.0, 50.0), start=1)
    ]
    assert [len(found) for found in new] == [1, 0, 0]
    (found,) = outliers.found.values()
    assert (found.site, found.kind, found.first, found.value, found.when) == (
        "site-2",
        "norm",
        "round 1",
        50,
        "round 3",
    )
    assert found.sentence.startswith("site-2: its update was 50 x as large as the others' median in round 3")


def test_facts_that_are_not_known():
    outliers = Outliers()
    assert outliers.add("round 1", {"site-1": {"norm": 3.0}, "site-2": {}}) == []
