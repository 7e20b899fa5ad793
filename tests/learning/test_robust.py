# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Robust rules: numbers by hand, the papers' words in plain Python as reference, and what the papers promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from custom.errors import BundleError
from custom.learning import robust
from custom.learning.coordinate_wise import Median, TrimmedMean, sort_columns
from custom.learning.geometric_median import GeometricMedian, weiszfeld
from custom.learning.krum import Krum, scores
from custom.learning.robust import (
    bound_statistics,
    clip,
    combine,
    distances_from,
    inner_products,
    keep_variances,
    side_by_side,
    squared_distances,
)
from tests.reference import robust as reference

SHAPES = {"w": (3, 2), "bias": (), "none": (0, 4), "v": (5,)}
RULES = [Median(), TrimmedMean(2), Krum(2), Krum(2, 3), Krum(2, None), GeometricMedian(), GeometricMedian(1000, True)]


def updates(*vectors: object, dtype: object = np.float32) -> list[dict[str, np.ndarray]]:
    """One tensor `w` each."""
    return [{"w": np.array(vector, dtype)} for vector in vectors]


def combined(rule: object, *vectors: object, weights: list[float] | None = None) -> list[float]:
    return rule(updates(*vectors), weights or [1.0] * len(vectors))["w"].tolist()


def products(points: list[dict[str, np.ndarray]]) -> np.ndarray:
    return inner_products(side_by_side(points), len(points))


def random_updates(n: int = 7, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{name: np.asarray(rng.normal(size=s)).astype(np.float32) for name, s in SHAPES.items()} for _ in range(n)]


def flat(update: dict[str, np.ndarray]) -> list[float]:
    return np.concatenate([np.ravel(update[name]) for name in SHAPES]).astype(float).tolist()


def test_median_by_hand():
    """An odd number: the one in the middle, entry by entry; an even one: (2 + 4) / 2 and (-1 + 0) / 2."""
    assert combined(Median(), [1, 9], [2, -1e30], [1e30, 3]) == [2, 3]
    assert combined(Median(), [1, 0], [2, -1], [4, 5], [100, -9]) == [3, -0.5]


def test_trimmed_mean_by_hand():
    """-50 and 100 go: (1 + 2 + 6) / 3; of seven without two at each end, (2 + 3 + 7) / 3."""
    assert combined(TrimmedMean(1), [1], [2], [6], [100], [-50]) == [3]
    assert combined(TrimmedMean(2), [0], [9], [2], [7], [3], [1], [8]) == [4]


def test_a_trimmed_mean_is_of_what_is_left_however_large_the_rest():
    """The sum of all less the largest and the smallest would be 0; in float32, twice 3e38 is infinite."""
    assert combined(TrimmedMean(1), [1], [3e38], [2], [-3e38], [3]) == [2]
    assert combined(Median(), [3e38], [3e38], [3e38], [-3e38]) == [np.float32(3e38)]


def test_krum_by_hand():
    """0, 1, 2, 4 and 100 with f = 1: the two nearest of each are 1 and 2 away, 1 and 1, 1 and 2, 2 and 3, 96 and 98."""
    points = updates([0], [1], [2], [4], [100])
    assert scores(squared_distances(products(points)), 1).tolist() == [5, 2, 5, 13, 96**2 + 98**2]
    assert combined(Krum(1), [0], [1], [2], [4], [100]) == [1]
    assert combined(Krum(1, 2), [0], [1], [2], [4], [100]) == [0.5]  # 0 before 2, which has the same score
    assert combined(Krum(1, 3), [0], [1], [2], [4], [100]) == [1]
    assert combined(Krum(1, None), [0], [1], [2], [4], [100]) == [1.75]


def test_distances_are_over_all_tensors_together():
    """3 apart in one and 4 in the other: 5; beside 1e30 none of it is lost."""
    pair = [{"a": np.zeros(1), "b": np.zeros(2)}, {"a": np.array([3.0]), "b": np.array([0.0, 4])}]
    far = {"a": np.array([1e30]), "b": np.zeros(2)}
    assert squared_distances(products([*pair, far]))[0, 1] == 25
    assert distances_from(np.array([0.0, 1, 0]), products([*pair, far])).tolist() == [5, 0, 1e30]


def test_a_tensor_that_an_update_lacks_is_zero():
    """(1, 2) and (3, .): 1 * 3 + 2 * 0."""
    pair = [{"a": np.ones(1, np.float32), "b": np.full(1, 2, np.float32)}, {"a": np.full(1, 3, np.float32)}]
    assert products(pair).tolist() == [[5, 3], [3, 9]]


def test_geometric_median_by_hand():
    """Of the corners of a convex quadrilateral, where the diagonals cross; a point with half of the weight is it."""
    corners = ([0, 0], [4, 4], [0, 3], [3, 0])
    assert combined(GeometricMedian(), *corners) == pytest.approx([1.5, 1.5], abs=1e-3)
    heavy = combined(GeometricMedian(1000, True), [1, 2], [5, 5], [9, -3], weights=[10, 4, 4])
    assert heavy == pytest.approx([1, 2], abs=1e-3)
    assert combined(GeometricMedian(), [1, 2], [5, 5], [9, -3], weights=[10, 4, 4]) != heavy


def test_one_step_of_weiszfeld_by_hand():
    """From v = (0, 0), 5, 5 and 10 away: 1/5, 1/5, 1/10, or 1/5, 1/5, 2/10 by weights 1, 1, 2."""
    points, zero = updates([3, 4], [-3, -4], [0, 10]), np.array([0.5, 0.5, 0])
    points = products(points)
    assert weiszfeld(points, np.array([1.0, 1, 1]), zero, 1) == pytest.approx([0.4, 0.4, 0.2])
    assert weiszfeld(points, np.array([1.0, 1, 2]), zero, 1) == pytest.approx([1 / 3, 1 / 3, 1 / 3])


def test_a_site_that_sends_zeros_does_not_hold_the_geometric_median():
    points = [[0, 0], [10, 11], [11, 10], [11, 11], [10, 10]]
    expected = reference.geometric_median(points, [1] * 5)
    assert min(expected) > 10
    assert combined(GeometricMedian(), *points) == pytest.approx(expected, abs=0.02)


def test_smoothing_bears_updates_that_are_all_the_same():
    assert combined(GeometricMedian(), [2, 3], [2, 3], [2, 3]) == pytest.approx([2, 3])


def test_clipping_by_hand():
    """Norm 5 to 2.5 is half of it; what is no larger stays what it is, bit for bit."""
    update = {"a": np.array([3.0], np.float32), "b": np.array([4.0], np.float16)}
    clipped = clip(update, 5, 2.5)
    assert {name: value.tolist() for name, value in clipped.items()} == {"a": [1.5], "b": [2.0]}
    assert {name: value.dtype for name, value in clipped.items()} == {"a": np.float32, "b": np.float16}
    assert clip(update, 5, 5) is update
    assert clip({"a": np.array([3e38], np.float32)}, 3e38, 1e-3)["a"].tolist() == pytest.approx([1e-3])
    assert np.isfinite(clip({"h": np.array([6e4], np.float16)}, 6e4, 1e-3)["h"]).all()


@pytest.mark.parametrize("n", range(1, 10))
def test_columns_are_sorted(n):
    rows = np.random.default_rng(n).integers(0, 5, (n, 200)).astype(np.float32)
    expected = np.sort(rows, axis=0)
    sort_columns(rows)
    assert np.array_equal(rows, expected)


@pytest.mark.parametrize("piece", [1, 4, 1 << 14])
@pytest.mark.parametrize("n", [7, 8])
def test_agrees_with_the_papers_words(n, piece, monkeypatch):
    monkeypatch.setattr(robust, "PIECE", piece)
    for seed in range(5):
        sent = random_updates(n, seed)
        vectors = [flat(update) for update in sent]
        ones = [1.0] * n
        expected = [
            (Median(), reference.median(vectors)),
            (TrimmedMean(2), reference.trimmed_mean(vectors, 2)),
            (Krum(2), vectors[reference.krum_order(vectors, 2)[0]]),
            (Krum(1, 3), reference.multi_krum(vectors, 1, 3)),
            (Krum(2, None), reference.multi_krum(vectors, 2, n - 2)),
        ]
        for rule, numbers in expected:
            np.testing.assert_allclose(flat(rule(sent, ones)), numbers, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [1, 2, 3, 4, 5]])
def test_the_geometric_median_is_the_lowest_point(weights):
    rng = np.random.default_rng(1)
    for _ in range(5):
        points = rng.normal(size=(5, 2)).tolist()
        expected = reference.geometric_median(points, weights)
        assert combined(GeometricMedian(1000, True), *points, weights=weights) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{type(rule).__name__} {vars(rule)}")
def test_the_result_fits_the_model_and_no_update_is_changed(rule):
    sent = random_updates()
    before = [flat(update) for update in sent]
    result = rule(sent, [1, 2, 3, 4, 5, 6, 7])
    assert {name: (value.shape, value.dtype) for name, value in result.items()} == {
        name: (shape, np.float32) for name, shape in SHAPES.items()
    }
    assert [flat(update) for update in sent] == before


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{type(rule).__name__} {vars(rule)}")
def test_the_order_of_updates_does_not_matter(rule):
    sent, weights = random_updates(), [7.0, 1, 5, 3, 2, 6, 4]
    expected = flat(rule(sent, weights))
    for order in itertools.islice(itertools.permutations(range(7)), 0, 5040, 997):
        got = rule([sent[k] for k in order], [weights[k] for k in order])
        np.testing.assert_allclose(flat(got), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", [rule for rule in RULES if not getattr(rule, "weigh_by_samples", False)])
def test_a_site_that_claims_many_samples_counts_once(rule):
    sent = random_updates()
    assert flat(rule(sent, [1e9, 1, 1, 1, 1, 1, 1])) == flat(rule(sent, [1.0] * 7))


def test_a_weight_is_as_many_sites():
    points = np.random.default_rng(2).normal(size=(3, 4)).tolist()
    once = combined(GeometricMedian(1000, True), *points, weights=[1, 2, 2])
    repeated = combined(GeometricMedian(), points[0], points[1], points[1], points[2], points[2])
    assert once == pytest.approx(repeated, abs=1e-4)


def with_statistics(points: list[float], means: list[float], variances: list[float]) -> list[dict[str, np.ndarray]]:
    """One weight and the running statistics of one channel each."""
    rows = zip(points, means, variances, strict=True)
    names = ("w", "bn.running_mean", "bn.running_var")
    return [{name: np.array([value], np.float32) for name, value in zip(names, row, strict=True)} for row in rows]


def numbers(update: dict[str, np.ndarray]) -> list[float]:
    return [value.item() for value in update.values()]


def test_statistics_are_no_part_of_distances():
    """Weights 3 and 5 apart; statistics that are 1e6 apart change none of it."""
    sent = with_statistics([0, 3, 5], [0, 1e6, -1e6], [0, 2e6, 9])
    assert squared_distances(products(sent)).tolist() == [[0, 9, 25], [9, 0, 4], [25, 4, 0]]


def test_krum_chooses_by_weights_and_takes_the_statistics_of_the_chosen():
    """0, 1, 2, 4 and 100: 1 is chosen; the statistics, which alone would choose the third, are its own."""
    sent = with_statistics([0, 1, 2, 4, 100], [0, 10, 20, 30, 40], [5, 6, 7, 8, 9])
    assert numbers(Krum(1)(sent, [1.0] * 5)) == [1, 10, 6]
    assert numbers(Krum(1, 2)(sent, [1.0] * 5)) == [
        0.5,
        10,
        6,
    ]  # of 0 and 1: 0 and 10 drawn in to 10 and 10, 5 and 6 to 6


@pytest.mark.parametrize("poison", [1e30, -1e30, 3e38])
@pytest.mark.parametrize("rule", [Median(), TrimmedMean(), Krum(), Krum(1, 3), Krum(1, None), GeometricMedian()])
def test_poisoned_statistics_stay_within_those_of_the_others(rule, poison):
    """A site whose weights are those that Krum chooses, so that nothing but its statistics gives it away."""
    sent = with_statistics([0, 1, 2, 4, 5], [1, poison, 2, 3, 4], [6, -poison, 7, 8, 9])
    weight, mean, variance = numbers(rule(sent, [1.0] * 5))
    assert 0 <= weight <= 5
    assert 1 <= mean <= 4
    assert 6 <= variance <= 9


def test_the_geometric_median_takes_the_median_of_the_statistics():
    sent = with_statistics([1, 1, 1], [0, 5, 100], [3, 2, 1])
    assert numbers(GeometricMedian()(sent, [1.0, 9, 1])) == [1, 5, 2]


def test_statistics_are_bounded_by_hand():
    """Of 0, 1, 2, 9 without one at each end: 1 to 2; the weights are the same arrays."""
    sent = with_statistics([7, 7, 7, 7], [0, 1, 2, 9], [4, 4, 4, 4])
    bounded = bound_statistics(sent, 1)
    assert [update["bn.running_mean"].item() for update in bounded] == [1, 1, 2, 2]
    assert all(after["w"] is before["w"] for after, before in zip(bounded, sent, strict=True))
    assert [update["bn.running_mean"].item() for update in sent] == [0, 1, 2, 9]


def test_no_variance_becomes_negative():
    """0.5 - 2 would be -1.5: the change ends at -0.5; means may be negative."""
    model = {"bn.running_var": np.array([0.5, 1], np.float32), "bn.running_mean": np.zeros(2, np.float32)}
    change = {"bn.running_var": np.array([-2, 3], np.float32), "bn.running_mean": np.array([-2, 3], np.float32)}
    kept = keep_variances(change, model)
    assert {name: value.tolist() for name, value in kept.items()} == {
        "bn.running_var": [-0.5, 3],
        "bn.running_mean": [-2, 3],
    }


def test_clipping_leaves_statistics_alone():
    update = {"w": np.array([3.0, 4], np.float32), "bn.running_var": np.array([8.0], np.float32)}
    clipped = clip(update, 5, 2.5)
    assert {name: value.tolist() for name, value in clipped.items()} == {"w": [1.5, 2], "bn.running_var": [8]}
    clipped = clip(update, 8, 2, statistics=True)
    assert {name: value.tolist() for name, value in clipped.items()} == {"w": [3, 4], "bn.running_var": [2]}


ENTRY = st.floats(-100, 100, width=32)
HOSTILE = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.sampled_from([0.0, 1e30, -1e30, 3e38, -3e38])


@st.composite
def attacked(draw, honest_per_bad: int, more: int) -> tuple[np.ndarray, np.ndarray, int, list[int]]:
    """Honest [n - f, 3], hostile [f, 3], f, and an order of them; n - f = `honest_per_bad` * f + `more`."""
    bad = draw(st.integers(1, 3))
    rows = st.lists(ENTRY, min_size=3, max_size=3)
    honest = draw(st.lists(rows, min_size=honest_per_bad * bad + more, max_size=honest_per_bad * bad + more))
    hostile = draw(st.lists(st.lists(HOSTILE, min_size=3, max_size=3), min_size=bad, max_size=bad))
    order = draw(st.permutations(range(len(honest) + bad)))
    return np.array(honest, np.float32), np.array(hostile, np.float32), bad, order


def under_attack(rule, honest, hostile, order) -> np.ndarray:
    everyone = updates(*honest, *hostile)
    return rule([everyone[k] for k in order], [1.0] * len(order))["w"].astype(float)


@settings(max_examples=150, deadline=None)
@given(attacked(1, 1))
def test_outliers_of_any_size_leave_each_entry_within_the_honest_ones(case):
    """With n >= 2 f + 1."""
    honest, hostile, bad, order = case
    for rule in (Median(), TrimmedMean(bad)):
        result = under_attack(rule, honest, hostile, order)
        assert (honest.min(axis=0) - 1e-5 <= result).all(), type(rule)
        assert (result <= honest.max(axis=0) + 1e-5).all(), type(rule)


@settings(max_examples=150, deadline=None)
@given(attacked(1, 3))
def test_krum_takes_an_honest_update_or_one_near_to_some(case):
    """With n >= 2 f + 3, n - f - 2 neighbours, at least n - 2 f - 1 of them honest, and D between honest ones at most:
    what is taken has no higher score than an honest one, so (n - 2 f - 1) d^2 <= (n - f - 2) D^2 for the nearest."""
    honest, hostile, bad, order = case
    n = len(order)
    result = under_attack(Krum(bad), honest, hostile, order)
    to_honest = np.linalg.norm(honest - result, axis=1).min()
    apart = max(np.linalg.norm(a.astype(float) - b) for a in honest for b in honest)
    assert to_honest <= apart * np.sqrt((n - bad - 2) / (n - 2 * bad - 1)) * (1 + 1e-6) + 1e-6


@settings(max_examples=100, deadline=None)
@given(attacked(2, 1))
def test_the_geometric_median_stays_near_the_honest_ones(case):
    """Fewer than a third are hostile: at most 2 (1 - a) / (1 - 2 a) radii from the honest mean (Minsker 2015), a < 1/3;
    so at most 4, and a fifth for the end of the iterations."""
    honest, hostile, _, order = case
    centre = honest.astype(float).mean(axis=0)
    radius = np.linalg.norm(honest - centre, axis=1).max()
    assume(radius > 1e-3)
    result = under_attack(GeometricMedian(), honest, hostile, order)
    assert np.linalg.norm(result - centre) <= 5 * radius


def test_the_mean_has_no_such_promise():
    """So that the tests above can fail: a single site leads the mean anywhere."""
    honest, hostile = np.ones((4, 3), np.float32), np.full((1, 3), 1e30, np.float32)
    mean = combine(updates(*honest, *hostile), [1 / 5] * 5)["w"]
    assert (mean > 1e29).all()
    assert under_attack(Median(), honest, hostile, range(5)).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("rule", "needs"),
    [(Median(), 3), (TrimmedMean(2), 5), (Krum(2), 7), (Krum(1, 9), 10), (Krum(1, None), 5), (GeometricMedian(), 3)],
)
def test_how_many_updates_a_rule_needs(rule, needs):
    rule.check()
    assert rule.min_updates == needs


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        (TrimmedMean(0), "byzantine"),
        (TrimmedMean(0.2), "byzantine"),
        (Krum(-1), "byzantine"),
        (Krum(1, 0), "chosen"),
        (Krum("1"), "byzantine"),
        (GeometricMedian(0), "max_iterations"),
    ],
)
def test_bad_settings(rule, key):
    with pytest.raises(BundleError, match=f"{key}: expected an integer of at least 1"):
        rule.check()
