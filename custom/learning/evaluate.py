# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How good is a model on one split?"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from custom.data.site_data import Batch
from custom.errors import BundleError

EVALUATION_BATCH = 512


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Iterable[Batch], prefix: str) -> dict[str, float]:
    """Accuracy and cross-entropy of `model`, each a mean over samples.

    Args:
        model: in any mode; left in evaluation mode.
        batches: inputs and int64 labels on the device of the model.
        prefix: put before the names, such as `val_`.

    Returns:
        `{prefix + "accuracy": in [0, 1], prefix + "loss": in nats}`.

    Raises:
        BundleError: there is no sample to score on.
    """
    model.eval()
    correct, loss, seen = 0.0, 0.0, 0
    for inputs, labels in batches:
        logits = model(inputs)
        correct += float((logits.argmax(1) == labels).sum())
        loss += float(functional.cross_entropy(logits.float(), labels, reduction="sum"))
        seen += len(labels)
    if seen == 0:
        split = {"val_": "validation", "test_": "test"}.get(prefix, prefix)
        raise BundleError(
            "has no samples", key=f"{split} split", remedy="check this site's data, dataset_path and partition"
        )
    return {f"{prefix}accuracy": correct / seen, f"{prefix}loss": loss / seen}
