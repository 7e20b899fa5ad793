# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The code against its textbook form, bit by bit (tests/reference/rice.py); other expected values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custom.compression import rice
from tests.reference import rice as textbook

position_sets = st.one_of(
    st.sets(st.integers(0, 40), min_size=1),
    st.sets(st.integers(0, 3000), min_size=1, max_size=60),
    st.sets(st.integers(0, 2**31 - 1), min_size=1, max_size=5),
)


@settings(deadline=None)
@given(position_sets, st.sampled_from([np.int32, np.int64]), st.integers(1, 100))
def test_there_and_back_and_as_in_the_textbook(chosen, dtype, beyond):
    positions = sorted(chosen)
    parameter, stream = rice.encode(np.array(positions, dtype))
    assert rice.decode(stream, parameter, len(positions), positions[-1] + beyond).tolist() == positions
    if positions[-1] >> parameter < 10_000:
        assert stream == textbook.encode(positions, parameter)
    shortest = textbook.best(positions)
    assert shortest <= 8 * len(stream) < shortest + 16
    assert len(stream) <= min(positions[-1] // 8 + 1, 4 * len(positions)) + 1  # a bitmap; int32


def test_by_hand():
    # Gaps 9, 0, 5 with b = 2: 001 1 01, and low bits 1, 0, 1 of weight 1, none of weight 2.
    assert rice.decode(bytes([0b00110100, 0b10100000]), 2, 3, 17).tolist() == [9, 10, 16]
    # Of 1, 2, 3, 5 a bitmap is shortest: 011101.
    assert rice.encode(np.array([1, 2, 3, 5], np.int32)) == (0, bytes([0b01110100]))


@pytest.mark.parametrize("density", [0.001, 0.01, 0.1, 0.3, 0.38, 0.5])
def test_within_an_eighth_of_a_bit_a_position_of_the_entropy(density):
    n = 200_000 if density > 0.001 else 4_000_000
    positions = np.flatnonzero(np.random.default_rng(0).random(n) < density)
    entropy = -n * (density * math.log2(density) + (1 - density) * math.log2(1 - density))
    _, stream = rice.encode(positions)
    assert 8 * len(stream) / entropy < 1.05
    assert (8 * len(stream) - entropy) / positions.size < 0.2  # 0.12, and what chance adds


@pytest.mark.parametrize(
    ("stream", "parameter", "count", "size", "problem"),
    [
        (b"", 0, 1, 8, "0 bytes for 1 of 8"),
        (b"\x80", 3, 3, 8, "1 bytes for 3 of 8"),
        (b"\x00\x80", 0, 1, 8, "2 bytes for 1 of 8"),
        (b"\x80\x00", 0, 1, 80, "zeros after the last position"),
        (b"\x01", 0, 1, 7, "position 7 of 7"),
        (b"\xc0\xc0", 1, 2, 3, "position 3 of 3"),
        (b"\xc1", 0, 2, 8, "3 positions for 2 values"),
        (b"\x80\x01", 1, 1, 8, "padding that is not zero"),
    ],
)
def test_damaged_streams(stream, parameter, count, size, problem):
    with pytest.raises(ValueError, match=problem):
        rice.decode(stream, parameter, count, size)


@settings(deadline=None)
@given(st.binary(max_size=12), st.integers(0, rice.MAX_PARAMETER), st.integers(1, 40), st.integers(0, 60))
def test_any_bytes_are_refused_or_give_ascending_positions_in_range(stream, parameter, count, more):
    try:
        positions = rice.decode(stream, parameter, count, count + more)
    except ValueError:
        return
    assert positions.size == count
    assert positions[0] >= 0
    assert positions[-1] < count + more
    assert (np.diff(positions) > 0).all()
