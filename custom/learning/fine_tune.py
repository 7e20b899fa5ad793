# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Local fine-tuning of a global model, from which a site never ends worse off on its validation data.

Wang et al. 2019, https://arxiv.org/abs/1910.10252 (federated personalisation by fine-tuning); the optional pull towards
the global model is that of Ditto, Li et al. 2021, https://arxiv.org/abs/2012.04221.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from custom.data.site_data import Batch, SiteData
from custom.errors import BundleError
from custom.learning.evaluate import evaluate_split
from custom.learning.train import train

Scores = dict[str, float]


@dataclass
class FineTuned:
    """What came of it; the model that was passed in holds the best epoch.

    Attributes:
        best_epoch: 0 is the model that was received.
        history: validation scores after each epoch, from epoch 0 on.
    """

    best_epoch: int = 0
    history: list[Scores] = field(default_factory=list)


def compile_pattern(train_only: str) -> re.Pattern[str]:
    """The regular expression of `train_only`; raises BundleError if it is none."""
    try:
        return re.compile(train_only)
    except (re.error, TypeError) as error:
        raise BundleError(
            code="setting-value",
            key="train_only",
            expected="a regular expression, such as fc3",
            got=f"{train_only!r} ({error})",
            remedy="correct it in config_fed_client.json",
        ) from error


@contextmanager
def only_training(model: nn.Module, train_only: str) -> Iterator[tuple[list[nn.Parameter], list[nn.Module]]]:
    """Freezes all parameters of `model` but those whose names match, until the end of the block.

    Args:
        model: parameters that it froze itself stay frozen.
        train_only: a regular expression searched for in parameter names; empty trains all.

    Yields:
        The parameters to train, and the modules to keep in evaluation mode: those with buffers (such as BatchNorm) none
        of whose parameters train, because their statistics belong to the frozen part.

    Raises:
        BundleError: no regular expression, or one that matches nothing.
    """
    pattern = compile_pattern(train_only)
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    chosen = [parameter for name, parameter in named.items() if pattern.search(name)]
    if not chosen:
        raise BundleError(
            code="setting-value",
            key="train_only",
            expected=f"a match among {', '.join(named)}",
            got=repr(train_only),
            remedy="name parameters of this model",
        )
    left_out = [parameter for name, parameter in named.items() if not pattern.search(name)]
    try:
        for parameter in left_out:
            parameter.requires_grad_(False)
        yield chosen, [module for module in model.modules() if left_out and _is_frozen(module)]
    finally:
        for parameter in left_out:
            parameter.requires_grad_(True)


def _is_frozen(module: nn.Module) -> bool:
    has_buffers = next(module.buffers(recurse=False), None) is not None
    return has_buffers and not any(parameter.requires_grad for parameter in module.parameters())


def pull_towards(parameters: list[nn.Parameter], strength: float) -> Callable[[], None]:
    """Adds the gradient of `strength / 2 * |w - w0|^2` to every gradient; w0 are the weights as they are now."""
    if strength == 0.0:
        return lambda: None
    anchors = [parameter.detach().clone() for parameter in parameters]

    def add() -> None:
        for parameter, anchor in zip(parameters, anchors, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor, alpha=strength)

    return add


def fine_tune(
    model: nn.Module,
    data: SiteData,
    epochs: Iterator[Iterator[Batch]],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    *,
    patience: int,
    frozen: list[nn.Module],
    accumulate_batches: int = 1,
    mixed_precision: bool = False,
    class_weights: torch.Tensor | None = None,
    after_backward: Callable[[], None] = lambda: None,
    learning_rates: Callable[[int], float] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FineTuned:
    """Trains epoch by epoch, keeps the one with the highest validation accuracy, the first of equals.

    Args:
        model: trained in place; holds the best epoch's weights at the end.
        data: the site's; only `validation` is read here.
        epochs: the batches of each epoch.
        optimizer: fresh.
        device: where the model is.
        patience: epochs without a better one before it stops; at least 1.
        frozen: see `only_training`.
        accumulate_batches, mixed_precision, class_weights: as in `train`.
        after_backward: see `pull_towards`.
        learning_rates: learning rate of each epoch, from 0 on, if it changes.
        should_stop: asked before every batch; then `Aborted` is raised.
    """

    def score() -> Scores:
        return evaluate_split(model, data, "validation", device)

    result = FineTuned(history=[score()])
    best, since = copy.deepcopy(model.state_dict()), 0
    for number, batches in enumerate(epochs, start=1):
        if learning_rates is not None:
            for group in optimizer.param_groups:
                group["lr"] = learning_rates(number - 1)
        train(
            model,
            batches,
            optimizer,
            accumulate_batches=accumulate_batches,
            mixed_precision=mixed_precision,
            class_weights=class_weights,
            frozen=frozen,
            after_backward=after_backward,
            should_stop=should_stop,
        )
        result.history.append(score())
        if result.history[-1]["val_accuracy"] > result.history[result.best_epoch]["val_accuracy"]:
            result.best_epoch, best, since = number, copy.deepcopy(model.state_dict()), 0
        else:
            since += 1
            if since >= patience:
                break
    model.load_state_dict(best)
    return result
