# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Dropout whose mask is a function of a key, so that it is the same wherever and however it is computed.

The key is a buffer: with copies of a model stacked for `torch.func.vmap`, every copy has a key of its own, and draws
the mask that it would draw alone (see `keys`). The mask comes from the mixing function of SplitMix64 (Steele, Lea and
Flood 2014, https://doi.org/10.1145/2660193.2660195) over key and position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

_WEYL, _MIX_1, _MIX_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # 64-bit constants, as signed
_STRIDE = 0x5851F42D4C957F2D  # odd, so that no two steps have one key


class KeyedDropout(nn.Module):
    """Zeroes a share `p` of the values in training and scales the others by 1 / (1 - p)."""

    key: torch.Tensor

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The same shape and dtype."""
        if not self.training or self.p == 0.0:
            return values
        positions = torch.arange(values.numel(), device=values.device).view(values.shape)
        kept = uniform(self.key, positions) >= self.p
        return values * kept.to(values.dtype) / (1.0 - self.p)


def keyed_layers(model: nn.Module) -> list[str]:
    """The names of all KeyedDropout layers of `model`."""
    return [name for name, module in model.named_modules() if isinstance(module, KeyedDropout)]


def set_keys(model: nn.Module, layers: Sequence[str], seed: int, step: int) -> None:
    """Gives the layers of `model` their `keys`."""
    for name, key in keys(layers, seed, step).items():
        model.get_buffer(name).fill_(key)


def keys(layers: Sequence[str], seed: int, step: int) -> dict[str, int]:
    """A key for every one of the layers at one step, by the name of its buffer.

    Args:
        layers: `keyed_layers` of a model.
        seed: of the copy of the model, non-negative.
        step: counts the forward passes that are to draw masks of their own.
    """
    return {
        f"{name}.key": (seed + (step * len(layers) + number) * _STRIDE) % 2**63 for number, name in enumerate(layers)
    }


def uniform(key: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Numbers in [0, 1) in steps of 2**-24, float32, one for each of the int64 `positions`."""
    mixed = positions * _WEYL + key
    mixed = (mixed ^ _shifted(mixed, 30)) * _MIX_1
    mixed = (mixed ^ _shifted(mixed, 27)) * _MIX_2
    return _shifted(mixed ^ _shifted(mixed, 31), 40).float() * 2.0**-24


def _shifted(values: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical shift to the right; that of torch fills up with the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
