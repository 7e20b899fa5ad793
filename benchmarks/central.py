# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Central training on the union of the sites' data: what the federated runs of the benchmarks are compared with."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from custom.data.site_data import SiteData
from custom.learning.evaluate import EVALUATION_BATCH, evaluate
from custom.learning.schedule import learning_rate
from custom.learning.seed import derive
from custom.learning.train import LocalBudget, train


def train_centrally(
    model: nn.Module,
    data: SiteData,
    device: torch.device,
    settings: Mapping[str, float | str],
    epochs: int,
    seed: int,
    metric: str,
    class_weights: torch.Tensor | None = None,
) -> None:
    """Trains as the jobs' sites do; leaves the model as it was after the epoch that is best on validation.

    Args:
        model: on `device`, with its first weights.
        data: of all sites.
        device: to train on.
        settings: the jobs': `batch_size`, `local_lr`, `lr_schedule`, `momentum` and `weight_decay`.
        epochs: as many as a site has in all rounds.
        seed: of the order of the samples.
        metric: of `custom.learning.evaluate`, by which the best epoch is chosen, such as `accuracy`.
        class_weights: of the loss; None weighs all alike.
    """
    sgd = {key: settings[key] for key in ("momentum", "weight_decay")}
    optimizer = torch.optim.SGD(model.parameters(), lr=float(settings["local_lr"]), **sgd)  # type: ignore[arg-type]
    budget = LocalBudget(batch_size=int(settings["batch_size"]))
    best, best_state = -1.0, model.state_dict()
    for epoch in range(epochs):
        rate = learning_rate(float(settings["local_lr"]), str(settings["lr_schedule"]), epoch, epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(derive(seed, 0, epoch))
        train(model, budget.batches(data, device, generator), optimizer, class_weights=class_weights)
        score = evaluate(model, data.batches("validation", EVALUATION_BATCH, device), "")[metric]
        if score > best:
            best, best_state = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
