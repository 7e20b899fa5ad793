# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FedAvg, Reptile and MAML for softmax regression, in NumPy float64 with derivatives worked out on paper.

Written from the papers' pseudocode, with nothing of `custom`: expected values for tests/learning. The weights are one
matrix w of shape (classes, features); p = softmax(x w'), the gradient is (p - y)' x / n, and the Hessian times v is
(diag(p) - p p')(x v') by rows, contracted with x.
"""

from __future__ import annotations

import numpy as np


def softmax(scores):
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def gradient(w, x, y):
    p = softmax(x @ w.T)
    p[np.arange(len(y)), y] -= 1
    return p.T @ x / len(y)


def hessian_times(w, v, x):
    p, directions = softmax(x @ w.T), x @ v.T
    return (p * (directions - (p * directions).sum(axis=1, keepdims=True))).T @ x / len(x)


def fed_avg(w, batches, lr):
    for x, y in batches:
        w = w - lr * gradient(w, x, y)
    return w


def reptile(w, batches, lr, beta2=0.999, epsilon=1e-8):
    second = np.zeros_like(w)
    for step, (x, y) in enumerate(batches, start=1):
        g = gradient(w, x, y)
        second = beta2 * second + (1 - beta2) * g * g
        w = w - lr * g / (np.sqrt(second / (1 - beta2**step)) + epsilon)
    return w


def first_order_maml(w, batches, inner_lr, outer_lr):
    for d, d1 in zip(batches[0::2], batches[1::2], strict=True):
        adapted = w - inner_lr * gradient(w, *d)
        w = w - outer_lr * gradient(adapted, *d1)
    return w


def maml(w, batches, inner_lr, outer_lr):
    """With the true Hessian, on a batch of its own, that Hessian-free MAML approximates."""
    for d, d1, d2 in zip(batches[0::3], batches[1::3], batches[2::3], strict=True):
        v = gradient(w - inner_lr * gradient(w, *d), *d1)
        w = w - outer_lr * (v - inner_lr * hessian_times(w, v, d2[0]))
    return w
