# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Per-FedAvg: meta-gradient steps at the writers (Fallah et al. 2020, https://arxiv.org/abs/2002.07948, algorithm 1).

Each step makes w good to take one gradient step from, by MAML's gradient (I - a H(w)) g(w - a g(w)), with the Hessian
left out (first order) or replaced by a difference of gradients (Hessian-free), as in the paper's section 5.
"""

from __future__ import annotations

from itertools import islice

import torch

from custom.checks.numbers import check_counts, check_rates
from custom.errors import BundleError
from custom.learning.cohort import Copies, draw_passes

Tensors = list[torch.Tensor]


class _Maml:
    """What both have in common.

    Args:
        inner_steps: meta-steps a writer takes.
        inner_lr: a, of the step that the model is to be good to take.
        outer_lr: b, of the meta-step.
        batch_size: samples a batch.
    """

    weigh_by_samples = False
    batches_a_step: int

    def __init__(
        self, inner_steps: int = 5, inner_lr: float = 0.02, outer_lr: float = 0.02, batch_size: int = 20
    ) -> None:
        self.inner_steps, self.inner_lr, self.outer_lr, self.batch_size = inner_steps, inner_lr, outer_lr, batch_size

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_counts(inner_steps=self.inner_steps, batch_size=self.batch_size)
        check_rates(inner_lr=self.inner_lr, outer_lr=self.outer_lr)

    def draw(self, rows: torch.Tensor, generator: torch.Generator) -> Tensors:
        """`batches_a_step` batches for each step."""
        return list(islice(draw_passes(rows, self.batch_size, generator), self.batches_a_step * self.inner_steps))

    def train(self, copies: Copies) -> None:
        """Meta-step after meta-step."""
        for first in range(0, copies.steps, self.batches_a_step):
            start = [parameter.detach().clone() for parameter in copies.parameters]
            direction = self.meta_gradient(copies, start, first)
            move(copies.parameters, start, direction, -self.outer_lr)

    def meta_gradient(self, copies: Copies, start: Tensors, first: int) -> Tensors:
        """The direction of one meta-step, on the batches from `first` on; the parameters are `start`, then anything."""
        raise NotImplementedError


class FirstOrderMaml(_Maml):
    """w~ = w - a g(w; D), then w <- w - b g(w~; D')."""

    batches_a_step = 2

    def meta_gradient(self, copies: Copies, start: Tensors, first: int) -> Tensors:
        """g(w~; D')."""
        move(copies.parameters, start, gradient(copies, first), -self.inner_lr)
        return gradient(copies, first + 1)


class HessianFreeMaml(_Maml):
    """w~ = w - a g(w; D), v = g(w~; D'), d = [g(w + e v; D'') - g(w - e v; D'')] / 2e, then w <- w - b (v - a d).

    Args:
        inner_steps: meta-steps a writer takes.
        inner_lr: a, of the step that the model is to be good to take.
        outer_lr: b, of the meta-step.
        batch_size: samples a batch.
        delta: e, of the difference quotient. It is not scaled by the length of v: where v is short, as near the end of
            training (0.004), the quotient is rounding error in float32, and the step that of FirstOrderMaml within 1 %.
    """

    batches_a_step = 3

    def __init__(
        self,
        inner_steps: int = 5,
        inner_lr: float = 0.02,
        outer_lr: float = 0.02,
        batch_size: int = 20,
        delta: float = 0.001,
    ) -> None:
        super().__init__(inner_steps, inner_lr, outer_lr, batch_size)
        self.delta = delta

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        super().check()
        check_rates(delta=self.delta)
        if self.delta == 0:
            raise BundleError(code="setting-value", key="delta", expected="a number above 0", got=self.delta)

    def meta_gradient(self, copies: Copies, start: Tensors, first: int) -> Tensors:
        """v - a d."""
        move(copies.parameters, start, gradient(copies, first), -self.inner_lr)
        v = gradient(copies, first + 1)
        move(copies.parameters, start, v, self.delta)
        ahead = gradient(copies, first + 2)
        move(copies.parameters, start, v, -self.delta)
        behind = gradient(copies, first + 2)
        scale = self.inner_lr / (2 * self.delta)
        return [v_i - scale * (a - b) for v_i, a, b in zip(v, ahead, behind, strict=True)]


def gradient(copies: Copies, batch: int) -> Tensors:
    """g(w; batch), where w are the parameters as they are."""
    copies.backward(batch)
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in copies.parameters]


@torch.no_grad()
def move(parameters: Tensors, origin: Tensors, direction: Tensors, length: float) -> None:
    """parameters <- origin + length * direction."""
    for parameter, o, d in zip(parameters, origin, direction, strict=True):
        parameter.copy_(o).add_(d, alpha=length)
