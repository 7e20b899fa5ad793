# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Golomb-Rice code for the gaps between ascending positions; vectorised, no loop over entries.

Golomb 1966, "Run-length encodings" (https://doi.org/10.1109/TIT.1966.1053907); Rice and Plaunt 1971
(https://doi.org/10.1109/TCOM.1971.1090789). A gap g >= 0 is coded, for a parameter b, as g >> b zeros, a one, and the
low b bits of g. With the best b it takes at most 0.12 bits a gap more than random positions need, at any density up to
one half; beyond that, code the positions left out.

All ones and zeros come first, then the low bits, plane by plane from the lowest; each part is padded with zeros to
whole bytes. Two familiar formats are special cases, so the best parameter is never worse than they are: b = 0 is a
bitmap (cut after its last one), b = 31 is 32 bits a position. What is decoded is ascending by construction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PARAMETER = 31


def encode(positions: NDArray[Any]) -> tuple[int, bytes]:
    """Codes ascending positions.

    Args:
        positions: [k], k >= 1, int32 or int64, strictly ascending from 0 or more.

    Returns:
        The parameter, 0 to 31, and the stream.
    """
    gaps = positions.copy()
    gaps[1:] -= positions[:-1]
    gaps[1:] -= 1
    parameter = _best_parameter(gaps)
    ones = positions if parameter == 0 else np.cumsum((gaps >> parameter) + 1, dtype=np.int64) - 1
    unary = np.zeros(int(ones[-1]) + 1, bool)
    unary[ones] = True
    planes = np.empty((parameter, gaps.size), bool)
    for bit in range(parameter):
        np.not_equal(gaps & (1 << bit), 0, out=planes[bit])
    return parameter, np.packbits(unary).tobytes() + np.packbits(planes).tobytes()


def _best_parameter(gaps: NDArray[Any]) -> int:
    """The length is convex in the parameter (each shift takes off at most half of what the last did): walk down it."""
    total = int(gaps.sum(dtype=np.int64))

    def length(parameter: int) -> int:
        zeros = int((gaps >> parameter).sum(dtype=np.int64)) if parameter else total
        return gaps.size * (1 + parameter) + zeros

    best = guess = min(int(0.7 * total / gaps.size).bit_length(), MAX_PARAMETER)  # about right for random positions
    shortest = length(guess)
    for step in (-1, 1):
        while 0 <= best + step <= MAX_PARAMETER and (there := length(best + step)) < shortest:
            best, shortest = best + step, there
        if best != guess:
            break
    return best


def decode(stream: bytes, parameter: int, count: int, size: int) -> NDArray[np.int64]:
    """Reads `count` positions below `size`; memory is bounded by `size` and by what has been received.

    Args:
        stream: as `encode` returned it.
        parameter: 0 to 31.
        count: 1 to `size`.
        size: positions are below it.

    Returns:
        [count], strictly ascending, in [0, size).

    Raises:
        ValueError: the stream is not one of `count` such positions; says why.
    """
    low_bytes = (count * parameter + 7) // 8
    unary_bytes = len(stream) - low_bytes
    most = (count + (size - count >> parameter) + 7) // 8  # the gaps add up to size - count at most
    if not (count + 7) // 8 <= unary_bytes <= most:
        raise ValueError(f"a stream of {len(stream)} bytes for {count} of {size} positions")
    packed = np.frombuffer(stream, np.uint8)
    ones = _ones(packed[:unary_bytes], count)
    if parameter:
        gaps = np.diff(ones, prepend=-1) - 1
        gaps <<= parameter
        gaps += _low_bits(packed[unary_bytes:], parameter, count)
        gaps += 1
        ones = np.cumsum(gaps) - 1
    if ones[-1] >= size:
        raise ValueError(f"position {ones[-1]} of {size}")
    return ones


def _ones(packed: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Where the ones are."""
    found = int(np.bitwise_count(packed).sum(dtype=np.int64))
    if found != count:
        raise ValueError(f"{found} positions for {count} values")
    if not packed[-1]:
        raise ValueError("zeros after the last position")
    return np.flatnonzero(np.unpackbits(packed).view(bool))


def _low_bits(packed: NDArray[np.uint8], parameter: int, count: int) -> NDArray[np.int64]:
    bits = np.unpackbits(packed)
    if bits[parameter * count :].any():
        raise ValueError("padding that is not zero")
    low = np.zeros(count, np.int64)
    for bit, plane in enumerate(bits[: parameter * count].reshape(parameter, count)):
        low += plane.astype(np.int64) << bit
    return low
