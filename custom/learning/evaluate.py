# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How good is a model on one split?"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from custom.data.site_data import Batch, SiteData
from custom.errors import BundleError
from custom.learning.two_classes import two_class_metrics

EVALUATION_BATCH = 512
EVALUATION_VALUES = 2**21  # of inputs in a batch: large images would else take all memory, at 512 a batch
PREFIXES = {"validation": "val_", "test": "test_"}


def evaluation_batch(data: SiteData) -> int:
    """How many samples of these data to score at once."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // math.prod(data.describe()["input_shape"])))


def evaluate_split(model: nn.Module, data: SiteData, split: str, device: torch.device) -> dict[str, float]:
    """`evaluate` on `validation` (names begin with `val_`) or `test` (`test_`)."""
    batches = data.batches(split, evaluation_batch(data), device) if data.size(split) else ()
    return evaluate(model, batches, PREFIXES[split])


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Iterable[Batch], prefix: str) -> dict[str, float]:
    """Accuracy and cross-entropy of `model`, each a mean over samples; of a model with two outputs, more.

    Args:
        model: in any mode; left in evaluation mode.
        batches: inputs and int64 labels on the device of the model.
        prefix: put before the names, such as `val_`.

    Returns:
        `{prefix + "accuracy": in [0, 1], prefix + "loss": in nats}`, and what
        `custom.learning.two_classes.two_class_metrics` returns.

    Raises:
        BundleError: there is no sample to score on.
    """
    model.eval()
    correct, loss, seen = 0.0, 0.0, 0
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    for inputs, labels in batches:
        logits = model(inputs)
        correct += float((logits.argmax(1) == labels).sum())
        loss += float(functional.cross_entropy(logits.float(), labels, reduction="sum"))
        seen += len(labels)
        if logits.shape[1] == 2:
            kept.append((logits.float(), labels))
    if seen == 0:
        split = {name: split for split, name in PREFIXES.items()}.get(prefix, prefix)
        raise BundleError(
            "has no samples",
            code="data-too-small",
            key=f"{split} split",
            remedy="check this site's data, dataset_path and partition",
        )
    metrics = {"accuracy": correct / seen, "loss": loss / seen}
    if kept:
        metrics |= two_class_metrics(*(torch.cat(column) for column in zip(*kept, strict=True)))
    return {f"{prefix}{name}": value for name, value in metrics.items()}
