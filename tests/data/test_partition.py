# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Partitions: numbers worked out by hand, and what must hold for every partition."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custom.data.partition import (
    dirichlet_fractions,
    iid_fractions,
    k_classes_fractions,
    share_out,
    split_by_fractions,
)
from custom.errors import BundleError


@st.composite
def partitions(draw):
    """A partition of one of the three kinds, over 1 to 8 sites and 1 to 10 classes."""
    sites, classes, seed = draw(st.integers(1, 8)), draw(st.integers(1, 10)), draw(st.integers(0, 2**62))
    return draw(
        st.sampled_from(
            [
                iid_fractions(sites, classes),
                dirichlet_fractions(sites, classes, draw(st.floats(1e-3, 1e6)), seed),
                k_classes_fractions(sites, classes, draw(st.integers(1, classes)), seed),
            ]
        )
    )


@settings(max_examples=150, deadline=None)
@given(partitions(), st.data())
def test_every_partition_is_a_disjoint_cover_in_proportion(fractions, data):
    sites, classes = fractions.shape
    held = fractions.sum(axis=0)
    assert np.all(np.isclose(held, 1) | (held == 0))
    assert np.all(fractions >= 0)
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=sites, max_size=200)))
    shares = split_by_fractions(labels, fractions, seed=data.draw(st.integers(0, 2**62)))
    dealt = np.concatenate(shares)
    assert len(shares) == sites
    assert len(np.unique(dealt)) == len(dealt)  # disjoint
    assert set(dealt) == set(np.flatnonzero(np.isin(labels, np.flatnonzero(held > 0))))  # covering
    for site, share in enumerate(shares):
        assert np.all(np.diff(share) > 0)
        wanted = fractions[site] * np.bincount(labels, minlength=classes)
        got = np.bincount(labels[share], minlength=classes)
        assert np.all(np.abs(got - wanted) <= 1 + 1e-6)


@given(st.integers(1, 12), st.integers(1, 10), st.integers(0, 2**62), st.data())
def test_k_classes_gives_each_site_k_classes_with_evenly_many_holders(sites, classes, seed, data):
    k = data.draw(st.integers(1, classes))
    held = k_classes_fractions(sites, classes, k, seed) > 0
    assert np.all(held.sum(axis=1) == k)
    holders = held.sum(axis=0)
    assert holders.max() - holders.min() <= 1
    assert np.all(holders > 0) or sites * k < classes


def test_iid_by_hand():
    """8 + 4 samples over 4 sites: 2 + 1 each."""
    labels = np.array([0] * 8 + [1] * 4)
    shares = split_by_fractions(labels, iid_fractions(4, 2), seed=3)
    assert [np.bincount(labels[share]).tolist() for share in shares] == [[2, 1]] * 4


def test_fractions_by_hand():
    """10 samples of class 0 at 70:30 are 7 and 3; 4 of class 1 at 25:75 are 1 and 3; nobody holds class 2."""
    labels = np.array([0] * 10 + [1] * 4 + [2] * 5)
    fractions = np.array([[0.7, 0.25, 0.0], [0.3, 0.75, 0.0]])
    shares = split_by_fractions(labels, fractions, seed=0)
    assert [np.bincount(labels[share], minlength=3).tolist() for share in shares] == [[7, 1, 0], [3, 3, 0]]


def test_rounding_favours_nobody():
    """2 sites, 100 classes of 1 sample: each class goes to one site, and to both sites about equally often."""
    shares = split_by_fractions(np.arange(100), iid_fractions(2, 100), seed=0)
    assert 30 <= len(shares[0]) <= 70


def test_k_classes_by_hand():
    """2 sites with 2 of 3 classes: one class is shared, two are not."""
    fractions = k_classes_fractions(2, 3, 2, seed=0)
    assert sorted(fractions.ravel().tolist()) == [0, 0, 0.5, 0.5, 1, 1]


def test_dirichlet_has_the_moments_of_the_textbook():
    """A share in Dirichlet(0.5) over 4 sites has the mean 1/4 and the variance (1/4)(3/4) / (4 * 0.5 + 1) = 0.0625."""
    shares = dirichlet_fractions(4, 20_000, 0.5, seed=0)
    assert shares.mean(axis=1) == pytest.approx([0.25] * 4, abs=0.005)
    assert shares.var(axis=1) == pytest.approx([0.0625] * 4, abs=0.002)


def test_smaller_alpha_skews_more():
    largest = [dirichlet_fractions(5, 1000, alpha, seed=1).max(axis=0).mean() for alpha in (0.05, 1, 1000)]
    assert largest[0] > 0.85 > largest[1] > 0.25 > largest[2]


@pytest.mark.parametrize("draw", [partial(dirichlet_fractions, 3, 10, 0.5), partial(k_classes_fractions, 3, 10, 4)])
def test_the_seed_decides(draw):
    assert np.array_equal(draw(7), draw(7))
    assert not np.array_equal(draw(7), draw(8))
    labels = np.arange(300) % 10
    one, same, other = (split_by_fractions(labels, draw(7), seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, one, same))
    assert not all(map(np.array_equal, one, other))


def test_a_site_is_tested_on_its_own_label_proportions():
    train, test = np.arange(5000) % 10, np.arange(1000) % 10
    draw = partial(dirichlet_fractions, 4, 10, 0.3)
    for train_rows, test_rows in zip(*share_out((train, test), (10, 2), draw, seed=5), strict=True):
        expected = np.bincount(train[train_rows], minlength=10) / 5
        assert np.abs(np.bincount(test[test_rows], minlength=10) - expected).max() <= 1.2  # 1 + 1/5 of rounding


def test_an_unlucky_draw_is_repeated():
    """The first draw leaves site 2 with nothing; the second does not."""
    draws = iter([np.array([[1.0], [0.0]]), np.array([[0.5], [0.5]])])
    (shares,) = share_out((np.zeros(10, dtype=int),), (5,), lambda _: next(draws), seed=0)
    assert [len(share) for share in shares] == [5, 5]


@pytest.mark.parametrize("alpha", [0, -1.0, math.nan, math.inf])
def test_bad_alpha(alpha):
    with pytest.raises(BundleError, match=r"alpha: expected a finite number above 0, got .*; 0.1 is strong"):
        dirichlet_fractions(2, 10, alpha, seed=0)


@pytest.mark.parametrize("k", [0, 11, -1])
def test_bad_k(k):
    with pytest.raises(BundleError, match=f"classes_per_site: expected 1 to 10, .* got {k}; "):
        k_classes_fractions(2, 10, k, seed=0)


def test_more_sites_than_samples():
    with pytest.raises(BundleError, match="partition: expected at most 3 sites, one a sample, got 4; start fewer"):
        split_by_fractions(np.zeros(3, dtype=int), iid_fractions(4, 1), seed=0)


def test_a_site_short_of_samples():
    labels = np.zeros(20, dtype=int)
    with pytest.raises(BundleError, match=r"at least \[11\] .* after 100 draws, got \[10\]; use fewer sites"):
        share_out((labels,), (11,), lambda _: iid_fractions(2, 1), seed=0)
