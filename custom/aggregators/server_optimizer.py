# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The server's step: the mean of the sites' updates as a pseudo-gradient for an optimiser (Reddi et al. 2021, FedOpt).

https://arxiv.org/abs/2003.00295, algorithm 1. Unlike FLARE's PTFedOptModelShareableGenerator it steps the global model
that the round began with, so it needs no model of its own and works after InitializeGlobalWeights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator

from custom.checks.numbers import check_rates
from custom.checks.update import Tensors, is_statistic
from custom.errors import BundleError
from custom.panic import ends_job


class _ServerOptimizer(FullModelShareableGenerator):
    """What the optimisers below have in common; used in place of FLARE's FullModelShareableGenerator."""

    def __init__(self) -> None:
        super().__init__()
        self._optimizer: torch.optim.Optimizer | None = None
        self._weights: dict[str, torch.Tensor] = {}
        self._kept: dict[str, Any] = {}  # the state of a job that this one continues, until the first step

    def state_dict(self) -> dict[str, Any]:
        """The names of the weights that are stepped, and torch's own state; empty before the first step."""
        if self._optimizer is None:
            return dict(self._kept)
        return {"names": list(self._weights), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        self._kept, self._optimizer = dict(state), None

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""

    def build(self, weights: list[torch.Tensor]) -> torch.optim.Optimizer:
        """The optimiser over `weights`."""
        raise NotImplementedError

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Ends a job whose settings are wrong as soon as it starts."""
        if event_type == EventType.START_RUN:
            self.check()

    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> ModelLearnable:
        """The next global model.

        Args:
            shareable: the aggregate, a WEIGHT_DIFF: mean of w_i - w. A tensor that it lacks counts as unchanged, as
                where sparse updates have nothing of it; an empty one leaves model and optimiser as they are.
            fl_ctx: holds the global model w of the round.
        """
        mean = _diff(from_shareable(shareable))
        received: Tensors = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]
        stepped = dict(received)
        trained = {
            name: value
            for name, value in received.items()
            if np.issubdtype(value.dtype, np.floating) and not is_statistic(name)
        }
        if trained.keys() & mean.keys():
            stepped |= self._step(trained, mean)
        for name in mean.keys() - trained.keys():  # statistics take the mean itself
            stepped[name] = received[name] + mean[name]
        return make_model_learnable(stepped, {})

    def _step(self, received: dict[str, np.ndarray], mean: Tensors) -> dict[str, np.ndarray]:
        if self._optimizer is None or self._weights.keys() != received.keys():
            self._weights = {name: torch.from_numpy(np.array(value)) for name, value in received.items()}
            self._optimizer = self.build(list(self._weights.values()))
            self._go_on()
        for name, weights in self._weights.items():
            weights.copy_(torch.from_numpy(np.array(received[name])))
            weights.grad = torch.zeros_like(weights)
            if name in mean:
                np.negative(mean[name], out=weights.grad.numpy())
        self._optimizer.step()
        return {name: weights.numpy().copy() for name, weights in self._weights.items()}

    def _go_on(self) -> None:
        """With other weights it starts afresh, as it does whenever they change."""
        kept, self._kept = self._kept, {}
        if self._optimizer is not None and kept and kept["names"] == list(self._weights):
            groups = self._optimizer.state_dict()["param_groups"]  # the settings are the job's
            self._optimizer.load_state_dict({"state": kept["optimizer"]["state"], "param_groups": groups})


class ServerSGD(_ServerOptimizer):
    """m <- momentum m + (mean of w - w_i), w <- w - lr m: FedAvgM (Hsu et al. 2019, https://arxiv.org/abs/1909.06335).

    With `server_lr` 1 and no momentum it is FedAvg.

    Args:
        server_lr: learning rate.
        server_momentum: in [0, 1).
    """

    def __init__(self, server_lr: float = 1.0, server_momentum: float = 0.9) -> None:
        super().__init__()
        self.server_lr, self.server_momentum = server_lr, server_momentum

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_rates(server_lr=self.server_lr)
        _check_decays(server_momentum=self.server_momentum)

    def build(self, weights: list[torch.Tensor]) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(weights, self.server_lr, self.server_momentum)


class ServerAdam(_ServerOptimizer):
    """FedAdam: Adam on the same pseudo-gradient, with the correction of the first steps that Reddi et al. leave out.

    Args:
        server_lr: learning rate.
        beta1: decay of the mean of gradients, in [0, 1).
        beta2: decay of the mean of their squares, in [0, 1).
        epsilon: added to the root of the latter; Reddi et al. find 1e-3 good, where Adam's own default is 1e-8.
    """

    def __init__(
        self, server_lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 0.001
    ) -> None:
        super().__init__()
        self.server_lr, self.beta1, self.beta2, self.epsilon = server_lr, beta1, beta2, epsilon

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        check_rates(server_lr=self.server_lr, epsilon=self.epsilon)
        if self.epsilon == 0:
            raise BundleError(
                code="setting-value",
                key="epsilon",
                expected="a number above 0: where nothing changes, 0 / 0 is none",
                got=0,
            )
        _check_decays(beta1=self.beta1, beta2=self.beta2)

    def build(self, weights: list[torch.Tensor]) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(weights, self.server_lr, (self.beta1, self.beta2), self.epsilon)


def _check_decays(**decays: float) -> None:
    check_rates(**decays)
    for key, value in decays.items():
        if value >= 1:
            raise BundleError(code="setting-value", key=key, expected="a number from 0 to below 1", got=value)


def _diff(dxo: DXO) -> Tensors:
    if dxo.data_kind != DataKind.WEIGHT_DIFF:
        raise BundleError(
            code="update-kind", key="aggregate", expected=DataKind.WEIGHT_DIFF.value, got=DataKind(dxo.data_kind).value
        )
    return dxo.data or {}
