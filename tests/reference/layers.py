# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The layers of the image models, in NumPy float64, from their definitions; images are (channels, height, width)."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]  # by PyTorch's names


def convolve(images: Array, weights: Weights, name: str, stride: int = 1, padding: int = 0) -> Array:
    """out[o, y, x] = sum over i, v, u of kernel[o, i, v, u] * images[i, y + v, x + u]; plus the bias, if there is one.

    Args:
        images: (channels, height, width).
        weights: with the square kernel `name`.weight (outputs, channels, side, side).
        name: of the layer.
        stride: every which row and column is kept.
        padding: rows and columns of zeros on each side.
    """
    kernel = weights[f"{name}.weight"]
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(padded, kernel.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    out = np.tensordot(kernel, windows, axes=((1, 2, 3), (0, 3, 4)))
    return out + weights.get(f"{name}.bias", np.zeros(len(kernel)))[:, None, None]


def linear(inputs: Array, weights: Weights, name: str) -> Array:
    """W x + b."""
    return weights[f"{name}.weight"] @ inputs.ravel() + weights[f"{name}.bias"]


def relu(values: Array) -> Array:
    """What is negative becomes 0."""
    return np.maximum(values, 0)


def max_pool(images: Array) -> Array:
    """The largest of each 2 x 2 pixels; an odd row or column at the end is left out."""
    return sliding_window_view(images, (2, 2), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))


def group_norm(images: Array, weights: Weights, name: str, groups: int) -> Array:
    """Wu and He 2018 (https://arxiv.org/abs/1803.08494), equation 1, with 1e-5 under the root; then scale and shift."""
    grouped = images.reshape(groups, -1)
    mean, variance = grouped.mean(1, keepdims=True), grouped.var(1, keepdims=True)
    normal = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(images.shape)
    return normal * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]


def adaptive_mean(images: Array, side: int) -> Array:
    """Means: cell i of `side` has the rows from floor(i n / side) to ceil((i + 1) n / side) of n, columns alike."""
    edges = [[(i * n // side, -(-(i + 1) * n // side)) for i in range(side)] for n in images.shape[1:]]
    return np.array([[[c[a:b, d:e].mean() for d, e in edges[1]] for a, b in edges[0]] for c in images])
