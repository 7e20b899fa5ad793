# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Selection against a full sort, entry by entry (tests/reference/topk.py); other expected values by hand."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from custom.compression import topk
from custom.compression.criteria import FinalMagnitude, MagnitudeChange, MagnitudeIncrease, Random
from custom.errors import BundleError
from tests.reference.topk import best

CRITERIA = [kind(largest) for kind in (MagnitudeChange, FinalMagnitude, MagnitudeIncrease) for largest in (True, False)]
RNG = np.random.default_rng(0)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
few_values = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0])  # many ties


@st.composite
def updates(draw):
    names = draw(st.lists(st.sampled_from(["a.weight", "a.bias", "b", "0", "é"]), unique=True, max_size=4))
    values = draw(st.sampled_from([few_values, st.floats(-(2.0**99), 2.0**99, width=32)]))
    update = {name: draw(hnp.arrays(np.float32, draw(shapes), elements=values)) for name in names}
    start = {name: draw(hnp.arrays(np.float32, update[name].shape, elements=values)) for name in names}
    return update, start


def refused(update, start=None, criterion=CRITERIA[0], keep_fraction=0.5, **kwargs) -> str:
    with pytest.raises(BundleError) as caught:
        topk.select(update, update if start is None else start, criterion, keep_fraction, **kwargs)
    return str(caught.value)


@settings(deadline=None)
@given(updates(), st.sampled_from(CRITERIA), st.floats(0.001, 1.0), st.sampled_from(topk.SCOPES), st.integers(1, 9))
def test_it_is_the_full_sort(models, criterion, keep_fraction, scope, piece):
    update, start = models
    scores = {name: criterion(start[name], update[name], RNG) for name in update}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "PIECE", piece)
        kept = topk.select(update, start, criterion, keep_fraction, scope=scope)
    assert {name: indices.tolist() for name, indices in kept.items()} == best(scores, keep_fraction, scope)
    assert all(indices.dtype == np.int32 for indices in kept.values())


@pytest.mark.parametrize("scope", topk.SCOPES)
@pytest.mark.parametrize("criterion", [*CRITERIA, Random()], ids=lambda c: f"{type(c).__name__}-{vars(c)}")
def test_tensors_of_many_pieces(monkeypatch, criterion, scope):
    monkeypatch.setattr(topk, "PIECE", 7)
    rng = np.random.default_rng(1)
    update = {name: rng.integers(-4, 5, (10, size)).astype(np.float32) for name, size in (("b", 9), ("a", 4))}
    start = {name: rng.integers(-4, 5, value.shape).astype(np.float32) for name, value in update.items()}
    kept = topk.select(update, start, criterion, 0.3, scope=scope)
    assert sum(map(len, kept.values())) == 39  # 0.3 x 130 = 27 + 12
    if not isinstance(criterion, Random):
        scores = {name: criterion(start[name], update[name], RNG) for name in update}
        assert {name: indices.tolist() for name, indices in kept.items()} == best(scores, 0.3, scope)


def test_memory_is_that_of_twice_what_is_kept():
    update = {"w": np.random.default_rng(0).random(4_000_000, np.float32)}
    tracemalloc.start()
    topk.select(update, update, MagnitudeChange(), 0.01)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 4 * 40_000 + 30 * topk.PIECE  # of 16 MB; the rest is a few pieces at a time


def test_what_each_criterion_keeps():
    # Change 3, 1, 0, 2; final size 2, 5, 9, 0; increase 1, 1, 0, -2.
    start = {"w": np.array([1.0, 4.0, 9.0, -2.0], np.float32)}
    update = {"w": np.array([-3.0, 1.0, 0.0, 2.0], np.float32)}
    expected = [[0, 3], [1, 2], [1, 2], [0, 3], [0, 1], [2, 3]]
    assert [topk.select(update, start, c, 0.5)["w"].tolist() for c in CRITERIA] == expected


def test_ties_go_to_the_first_name_and_the_lowest_index():
    update = {"b": np.ones((2, 2), np.float32), "a": np.float32(1), "c": np.array([0, 2], np.float32)}
    kept = topk.select(update, update, MagnitudeChange(), 3 / 7)
    assert {name: indices.tolist() for name, indices in kept.items()} == {"a": [0], "b": [0], "c": [1]}


def test_per_tensor_each_keeps_its_share_and_one_at_least():
    update = {"a": np.arange(10, dtype=np.float32), "b": np.ones((), np.float32), "c": np.ones((0, 3), np.float32)}
    kept = topk.select(update, update, MagnitudeChange(), 0.25, scope="tensor")
    assert {name: indices.tolist() for name, indices in kept.items()} == {"a": [8, 9], "b": [0], "c": []}


def test_integers_neither_count_nor_appear():
    update = {"conv.weight": np.ones(4, np.float32), "bn.num_batches_tracked": np.array(3)}
    kept = topk.select(update, update, MagnitudeChange(), 0.5)
    assert {name: indices.tolist() for name, indices in kept.items()} == {"conv.weight": [0, 1]}
    assert topk.select({}, {}, MagnitudeChange(), 0.5) == {}


def test_all_are_kept_in_every_scope():
    update = {"a": np.zeros((2, 3), np.float32), "b": np.float32(0)}
    for scope in topk.SCOPES:
        kept = topk.select(update, update, MagnitudeChange(), 1.0, scope=scope)
        assert {name: indices.tolist() for name, indices in kept.items()} == {"a": [0, 1, 2, 3, 4, 5], "b": [0]}


def test_chance_is_seeded_and_differs_between_rounds_and_tensors():
    update = {name: np.zeros(300_000, np.float32) for name in "ab"}
    once, again, later = (topk.select(update, update, Random(), 0.5, seed=seed) for seed in (7, 7, 8))
    assert once["a"].tolist() == again["a"].tolist() != later["a"].tolist()
    assert once["a"].tolist() != once["b"].tolist()
    assert abs(once["a"].size - 150_000) < 1000  # 2.6 standard deviations of the difference


@pytest.mark.parametrize("bad", [0, -0.1, 1.0001, 5, math.nan, math.inf, True, "0.1", None])
def test_bad_fractions(bad):
    assert "keep_fraction: expected a number above 0, at most 1" in refused({}, keep_fraction=bad)
    with pytest.raises(BundleError):
        topk.warm_up(bad, 0, 3)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("bad", [np.nan, -np.nan])
def test_a_score_that_is_nan_names_the_tensor(criterion, bad):
    update = {"a": np.ones(5, np.float32), "b": np.array([1, bad, 0], np.float32)}
    assert refused(update, criterion=criterion).startswith("b: the score of an entry is NaN")


def test_other_mistakes():
    update = {"w": np.ones(3, np.float32)}
    assert "scope: expected model or tensor, got layer" in refused(update, scope="layer")
    assert "w: in the global model, expected (3,), got no such tensor" in refused(update, {})
    assert "w: in the global model, expected (3,), got (1, 3)" in refused(update, {"w": np.ones((1, 3), np.float32)})
    assert "one score an entry, expected (3,), got ()" in refused(update, criterion=lambda s, u, rng: u.sum())
    other = iter(range(10))
    problem = refused({"w": np.ones(100, np.float32)}, criterion=lambda s, u, rng: u * next(other))
    assert "other scores at every call" in problem


def test_infinite_scores_are_in_order():
    update = {"w": np.array([1, -np.inf, 5, np.inf], np.float32)}
    for scores, expected in ((update["w"], [2, 3]), (-update["w"], [0, 1])):
        assert topk.select(update, update, lambda s, u, rng, scores=scores: scores, 0.5)["w"].tolist() == expected


def test_warm_up_is_geometric():
    # Deep Gradient Compression's 75 %, 93.75 %, 98.4 %, 99.6 %, 99.9 % sparsity: 0.001 ** (1/5) = 0.2512.
    fractions = [topk.warm_up(0.001, r, 5) for r in range(7)]
    assert fractions == pytest.approx([1, 0.2512, 0.0631, 0.01585, 0.003981, 0.001, 0.001], rel=1e-3)
    assert topk.warm_up(0.01, 0, 0) == 0.01
    with pytest.raises(BundleError, match="warmup_rounds"):
        topk.warm_up(0.01, 0, -1)
    with pytest.raises(BundleError, match="round_number"):
        topk.warm_up(0.01, -1, 1)
