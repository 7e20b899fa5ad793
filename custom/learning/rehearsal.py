# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Tries before the first round what training will run, on a few samples and without a trace."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from custom.data.inspection import SPLITS, one_line
from custom.data.site_data import Batch, SiteData
from custom.errors import BundleError
from custom.learning.train import LocalBudget

FEW = 4  # samples of a step that is tried


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Within the block `model` may be trained; after it, weights, buffers, modes and random numbers are as before."""
    modules = [(module, module.training, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    devices = sorted({tensor.device.index or 0 for tensor in tensors if tensor.is_cuda})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for module, mode, parameters, buffers in modules:
            module.training = mode
            module._parameters.update(parameters)
            module._buffers.update(buffers)
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        for parameter in model.parameters():
            parameter.grad = None


@contextmanager
def named_as_unfit(model: nn.Module, what: str) -> Iterator[None]:
    """Makes a BundleError, that `what` was expected of the model, of all other errors raised within the block."""
    try:
        yield
    except (BundleError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise BundleError(
            code="model-unfit",
            key="model",
            expected=what,
            got=f"{type(model).__name__} ({one_line(error)})",
            remedy="correct the model, or choose another model or dataset",
        ) from error


def check_outputs(model: nn.Module, data: SiteData, device: torch.device) -> None:
    """Scores one sample, whose outputs must be what the loss and the metrics take; leaves the model in evaluation mode.

    Raises:
        BundleError: the model does not take the site's data, or its outputs are not (batch, classes).
    """
    info = data.describe()
    split = next((split for split in SPLITS if data.size(split)), None)
    if split is None:
        return
    inputs, _ = first_batch(data, split, 1, device)
    fitting = f"a model for {info['dataset']}, samples of shape {list(info['input_shape'])}"
    with torch.inference_mode(), named_as_unfit(model, fitting):
        outputs = model.eval()(inputs)
    if not torch.is_tensor(outputs):
        raise _unfit(
            "outputs of the model", "one tensor of shape (batch, classes)", _kind(outputs), _unpacking(outputs)
        )
    if outputs.dim() != 2 or len(outputs) != 1:
        expected = f"shape (1, {info['num_classes']}) for one sample"
        remedy = "does the model squeeze or flatten the dimension of the batch? One number a class is needed"
        raise _unfit("outputs of the model", expected, f"shape {tuple(outputs.shape)}", remedy)
    if outputs.shape[1] < info["num_classes"]:
        expected = f"a model with {info['num_classes']} outputs, as many as {info['dataset']} has classes"
        remedy = f"set num_classes={info['num_classes']}, or give a model of your own so many outputs"
        raise _unfit("num_classes", expected, outputs.shape[1], remedy)
    if not outputs.is_floating_point() or not bool(torch.isfinite(outputs).all()):
        if wrong := next((name for name, value in model.state_dict().items() if not _is_finite(value)), ""):
            raise _unfit("weights of the model", "finite numbers", f"NaN or infinity in {wrong}", "correct the model")
        got = f"{outputs.dtype}, {int((~torch.isfinite(outputs)).sum())} of them NaN or infinite"
        remedy = "the inputs are finite: does the model divide by 0, or take the logarithm of 0?"
        raise _unfit("outputs of the model", "finite floating-point numbers", got, remedy)


def need_samples(data: SiteData, splits: Iterable[str], purpose: str) -> None:
    """Raises BundleError if one of `splits` is empty."""
    for split in splits:
        if not data.size(split):
            raise BundleError(
                f"has no samples, which are needed {purpose}",
                code="data-too-small",
                key=f"{split} split",
                remedy="check this site's data and, if the job has them, dataset_path and partition",
            )


def first_batch(data: SiteData, split: str, size: int, device: torch.device, seed: int = 0) -> Batch:
    """A batch of `size` samples, or of all if there are fewer; of `train`, one as in training, shuffled and augmented.

    Raises:
        BundleError: the data do not give one.
    """
    generator = torch.Generator().manual_seed(seed) if split == "train" else None
    try:
        batch = next(iter(data.batches(split, size, device, generator)), None)
    except BundleError:
        raise
    except Exception as error:
        raise _no_batch(split, "a batch that can be read", one_line(error), "correct the data component") from error
    if batch is None:
        expected = f"a batch of {min(size, data.size(split))} of {data.size(split)} samples, with batches of {size}"
        remedy = "let batches() begin anew at each call, and keep a last batch that is smaller (drop_last=False)"
        raise _no_batch(split, expected, "none", remedy)
    return batch


def try_steps(
    model: nn.Module, data: SiteData, budget: LocalBudget, device: torch.device, step: Callable[[Batch], float]
) -> None:
    """Takes a step on a small batch, and on one of the size of a pass's last, each from the weights of `model`.

    Args:
        model: on `device`; left as it was.
        data: with training samples.
        budget: of a round; if it is one of steps, the last batch of a pass may never come.
        device: of the model.
        step: trains `model` on a batch and returns the loss.

    Raises:
        BundleError: a loss, on inputs and outputs that are finite, is not; or a pass would have no batch.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        remedy = "leave requires_grad of some parameters True"
        raise _unfit("parameters of the model", "one or more that can be trained", "none", remedy)
    samples = data.size("train")
    if samples < budget.batch_size:
        first_batch(data, "train", budget.batch_size, device)  # data that drop a last batch which is smaller have none
    sizes = [min(samples, budget.batch_size, FEW)]
    if budget.local_steps is None or budget.local_steps >= math.ceil(samples / budget.batch_size):
        sizes.append(samples % budget.batch_size or sizes[0])
    for size in dict.fromkeys(sizes):
        with undisturbed(model):
            loss = step(first_batch(data, "train", size, device))
        if not math.isfinite(loss):
            remedy = "the inputs are finite: does the model divide by 0, or take the logarithm of 0, when it trains?"
            raise _unfit("loss of the first step", "a finite number", loss, remedy)


class WithoutSingles:
    """Data whose batches of one training sample are left out: a pass ends with a full batch."""

    def __init__(self, data: SiteData) -> None:
        self._data = data

    def describe(self) -> dict[str, Any]:
        """As of the data."""
        return self._data.describe()

    def size(self, split: str) -> int:
        """Number of samples of a pass."""
        return self._data.size(split) - (split == "train")

    def batches(
        self, split: str, batch_size: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Iterable[Batch]:
        """As of the data; another sample is left out in every shuffled pass."""
        whole = self._data.batches(split, batch_size, device, generator)
        return whole if split != "train" else (batch for batch in whole if len(batch[1]) > 1)


def trainable(
    model: nn.Module, data: SiteData, batch_size: int, device: torch.device, frozen: Sequence[nn.Module] = ()
) -> SiteData:
    """The data to train `model` on: without a last batch of one sample, if BatchNorm cannot train on that.

    Args:
        model: on `device`.
        data: of the site.
        batch_size: samples a batch.
        device: of the model.
        frozen: modules that stay in evaluation mode.

    Raises:
        BundleError: there would be no batch of two.
    """
    samples = data.size("train")
    if not samples or (samples % batch_size or batch_size) != 1 or not _needs_two(model, data, device, frozen):
        return data
    if samples == 1:
        remedy = "give this site no training samples or more of them, or use GroupNorm in place of BatchNorm"
        expected, code = "2 training samples or more, since the model has BatchNorm", "data-too-small"
        raise BundleError(code=code, key="train split", expected=expected, got=1, remedy=remedy)
    if batch_size == 1:
        expected, remedy = "2 or more, since the model has BatchNorm", "raise it, or use GroupNorm"
        raise BundleError(code="setting-value", key="batch_size", expected=expected, got=1, remedy=remedy)
    return WithoutSingles(data)


def left_out(data: SiteData) -> list[str]:
    """What to say of the result of `trainable`."""
    if not isinstance(data, WithoutSingles):
        return []
    samples = data.size("train")
    return [f"each pass is over {samples} of {samples + 1} samples: BatchNorm cannot train on a last batch of one"]


def _needs_two(model: nn.Module, data: SiteData, device: torch.device, frozen: Sequence[nn.Module]) -> bool:
    """Is there a BatchNorm that would see one value a channel? One of images that are still large sees more."""
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return False
    inputs, _ = first_batch(data, "train", 1, device)
    with torch.no_grad(), undisturbed(model):
        model.train()
        for module in frozen:
            module.eval()
        try:
            model(inputs)
        except ValueError as error:
            return "more than 1 value per channel" in str(error)
    return False


def _is_finite(value: Any) -> bool:
    return not torch.is_tensor(value) or not value.is_floating_point() or bool(torch.isfinite(value).all())


def _kind(outputs: Any) -> str:
    if isinstance(outputs, tuple | list):
        return f"{type(outputs).__name__} of {len(outputs)}"
    return type(outputs).__name__


def _unpacking(outputs: Any) -> str:
    if hasattr(outputs, "logits"):
        return "return outputs.logits from forward"
    first = "outputs[0]" if isinstance(outputs, tuple | list) else "the logits alone"
    return f"return {first} from forward"


def _no_batch(split: str, expected: str, got: str, remedy: str) -> BundleError:
    return BundleError(code="data-malformed", key=f"{split} batches()", expected=expected, got=got, remedy=remedy)


def _unfit(key: str, expected: object, got: object, remedy: str) -> BundleError:
    return BundleError(code="model-unfit", key=key, expected=expected, got=got, remedy=remedy)
