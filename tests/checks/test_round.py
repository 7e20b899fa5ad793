# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How the updates of a round stand among each other; numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from custom.checks.round import median_of_others, norm_limits, standings


def of(*updates: list[float], samples: list[float] | None = None):
    rows = np.array(updates, np.float64)
    return standings(rows @ rows.T, np.array(samples or [1.0] * len(rows)))


def test_each_is_compared_with_the_median_of_the_others():
    """Others of 1: 2, 3, 10; of 10: 1, 2, 3; of 0: 1, 2, 3, 10, and of the rest it does not count."""
    assert median_of_others(np.array([1.0, 2, 3, 10])).tolist() == [3, 3, 2, 2]
    assert median_of_others(np.array([0.0, 1, 2, 3, 10])).tolist() == [2.5, 3, 3, 2, 2]
    assert np.isnan(median_of_others(np.array([5.0]))).all()


def test_standings_by_hand():
    """(3, 4), (6, 8) and (0, -5). Norms 5, 10, 5. The others of the first, as unit vectors: (.6, .8) + (0, -1) =
    (.6, -.2), of length sqrt .4; its product with (.6, .8) is .2. Of the third: (1.2, 1.6) with (0, -1): -.8."""
    first, second, third = of([3, 4], [6, 8], [0, -5], samples=[1, 1, 12])
    assert (first.norm, first.norm_ratio, first.samples_ratio) == (5, pytest.approx(5 / 7.5), pytest.approx(1 / 6.5))
    assert (second.norm_ratio, third.samples_ratio) == (2, 12)
    assert [first.cosine, third.cosine] == pytest.approx([0.2 / np.sqrt(0.4), -0.8])


def test_an_update_of_any_size_hides_none_of_the_others():
    """Cosines do not depend on lengths, however far apart they are."""
    assert of([1, 0], [1, 1e-3], [-1e30, 0])[0].cosine == pytest.approx(of([1, 0], [1, 1e-3], [-1, 0])[0].cosine)


def test_what_is_not_known_is_none():
    alone = of([3, 4])[0]
    assert (alone.norm, alone.norm_ratio, alone.cosine, alone.samples_ratio) == (5, None, None, None)
    assert alone.to_json() == {"norm": 5}
    assert of([3, 4], [1, 0])[0].cosine is None  # of two, neither is the odd one out
    unmoved = of([0, 0], [1, 0], [1, 0])
    assert (unmoved[0].norm_ratio, unmoved[0].cosine) == (0, None)


def test_limits_by_hand():
    """Three times the others' median; a site with five times the others' samples may have five times that."""
    norms, ones = np.array([1.0, 1, 1, 9]), np.ones(4)
    assert norm_limits(norms, ones, 3).tolist() == [3, 3, 3, 3]
    assert norm_limits(norms, np.array([1.0, 1, 1, 5]), 3).tolist() == [3, 3, 3, 15]
    assert norm_limits(norms, np.array([1.0, 1, 1, 1e9]), 3).tolist() == [3, 3, 3, 30]  # a claim excuses ten times
    assert norm_limits(np.array([7.0]), np.ones(1), 3).tolist() == [np.inf]
    assert norm_limits(np.array([7.0, 0]), np.ones(2), 3).tolist() == [np.inf, 21]  # nobody else moved
