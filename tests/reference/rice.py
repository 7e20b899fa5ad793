# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Golomb-Rice code bit by bit, as in the textbook, with the two parts in the order of `custom.compression.rice`."""

from __future__ import annotations


def encode(positions: list[int], parameter: int) -> bytes:
    """The stream, for any parameter."""
    unary, low, previous = "", [], -1
    for position in positions:
        gap = position - previous - 1
        previous = position
        unary += "0" * (gap >> parameter) + "1"
        low.append(gap % 2**parameter)
    planes = "".join(str(gap >> bit & 1) for bit in range(parameter) for gap in low)
    return to_bytes(unary) + to_bytes(planes)


def best(positions: list[int]) -> int:
    """Bits of the shortest code over all parameters, without padding."""
    gaps = [b - a - 1 for a, b in zip([-1, *positions], positions, strict=False)]
    return min(sum((gap >> b) + 1 + b for gap in gaps) for b in range(32))


def to_bytes(bits: str) -> bytes:
    """Padded with zeros; the first bit is the highest of its byte."""
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
