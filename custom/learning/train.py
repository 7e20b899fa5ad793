# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Local training by mini-batches: the inner loop of FedAvg (McMahan et al. 2017, https://arxiv.org/abs/1602.05629).

Not a trainer framework: no checkpoints, no logging, no FLARE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice

import torch
from torch import nn
from torch.nn import functional

from custom.checks.numbers import check_counts
from custom.data.site_data import Batch, SiteData
from custom.errors import BundleError
from custom.learning.device import has_bfloat16
from custom.models.keyed_dropout import keyed_layers, set_keys


@dataclass(frozen=True)
class LocalBudget:
    """How much one site trains in one round: `local_steps` batches if given, else `local_epochs` passes."""

    local_epochs: int = 1
    local_steps: int | None = None
    batch_size: int = 64

    def check(self, epochs_key: str = "local_epochs", steps_key: str = "local_steps") -> None:
        """Raises BundleError, which names the argument by the given keys, if a number is out of range."""
        steps = {} if self.local_steps is None else {steps_key: self.local_steps}
        check_counts(**{epochs_key: self.local_epochs}, **steps, batch_size=self.batch_size)

    def passes(self, data: SiteData) -> int:
        """How many passes over the site's data the budget begins."""
        if self.local_steps is None:
            return self.local_epochs
        return math.ceil(self.local_steps / math.ceil(data.size("train") / self.batch_size))

    def epochs(self, data: SiteData, device: torch.device, generator: torch.Generator) -> Iterator[Iterator[Batch]]:
        """The training batches pass by pass, each in a fresh order; the last pass of `local_steps` may be a part."""
        a_pass = math.ceil(data.size("train") / self.batch_size)
        left = self.local_steps if self.local_steps is not None else self.local_epochs * a_pass
        while left > 0 and a_pass > 0:
            yield islice(data.batches("train", self.batch_size, device, generator), left)
            left -= min(left, a_pass)

    def batches(self, data: SiteData, device: torch.device, generator: torch.Generator) -> Iterator[Batch]:
        """The training batches of one round."""
        return chain.from_iterable(self.epochs(data, device, generator))


class Aborted(Exception):
    """Training was told to stop."""


def train(
    model: nn.Module,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    accumulate_batches: int = 1,
    mixed_precision: bool = False,
    class_weights: torch.Tensor | None = None,
    frozen: Sequence[nn.Module] = (),
    after_backward: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> float:
    """Trains `model` in place on `batches` with the cross-entropy loss; dropout draws from torch's global generator.

    Args:
        model: in any mode; left in training mode.
        batches: inputs and int64 labels on the device of the model.
        optimizer: over the parameters of the model that are to be trained.
        accumulate_batches: how many batches a step is taken on, as if they were one; the last step may have fewer.
        mixed_precision: run the forward pass in bfloat16; of effect on CUDA, and on a CPU with AMX.
        class_weights: of shape (classes,), on the device of the model: what a sample counts in the loss, by class.
        frozen: modules kept in evaluation mode, so that the statistics of BatchNorm stay as they are.
        after_backward: called when the gradients of a step are there, and may add to them.
        should_stop: asked before every step.

    Returns:
        The mean loss over all samples seen, each counted as `class_weights` says.

    Raises:
        Aborted: `should_stop` said so.
        BundleError: there was no batch to train on.
    """
    model.train()
    for module in frozen:
        module.eval()
    total, seen = torch.zeros((), dtype=torch.float64), 0
    layers, forward_passes = keyed_layers(model), count()
    seed = int(torch.randint(2**62, ())) if layers else 0
    while group := list(islice(batches, accumulate_batches)):
        if should_stop():
            raise Aborted
        optimizer.zero_grad(set_to_none=True)
        samples = sum(len(labels) for _, labels in group)
        for inputs, labels in group:
            set_keys(model, layers, seed, next(forward_passes))
            with torch.autocast(labels.device.type, torch.bfloat16, enabled=mixed_precision and has_bfloat16(labels)):
                loss = _loss(model(inputs).float(), labels, class_weights)
            (loss * (len(labels) / samples)).backward()
            total = total.to(loss.device) + loss.detach().double() * len(labels)  # no wait for the device in the loop
        after_backward()
        optimizer.step()
        seen += samples
    if seen == 0:
        raise BundleError(code="data-too-small", key="train", expected="at least one batch to train on", got="none")
    return float(total) / seen


def _loss(logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor | None) -> torch.Tensor:
    if class_weights is None:
        return functional.cross_entropy(logits, labels)
    # torch's own weighted mean divides by the weights in a batch: a batch of one class would then have none.
    return (functional.cross_entropy(logits, labels, reduction="none") * class_weights[labels]).mean()
