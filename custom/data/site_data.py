# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What every data component gives an executor: one site's splits, as batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

Batch = tuple[Any, torch.Tensor]


class SiteData(Protocol):
    """One site's disjoint `train`, `validation` and `test` splits."""

    def describe(self) -> dict[str, Any]:
        """Facts that the sites of one federation must agree on, as plain JSON types.

        Returns:
            `{"dataset": str, "embedded": bool, "num_classes": int, "input_shape": list[int]}`, and what else there is,
            such as `"encoder_embedded": bool` of texts.
        """

    def size(self, split: str) -> int:
        """Number of samples in `split`."""

    def batches(
        self, split: str, batch_size: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Iterable[Batch]:
        """Pairs of model input and int64 labels of shape (batch,), on `device`.

        Args:
            split: `train`, `validation` or `test`.
            batch_size: samples a batch; the last may be smaller.
            device: where the batches are wanted.
            generator: a CPU generator that shuffles (and, on `train`, augments); without it the order is fixed.
        """


@runtime_checkable
class Counted(Protocol):
    """Data that are counted in more than the samples of each split."""

    def counts(self) -> dict[str, int]:
        """Number of samples by split, and of whatever else there is, such as writers or samples left out."""


@runtime_checkable
class FiniteInputs(Protocol):
    """Data whose inputs cannot be NaN, such as scaled bytes or token numbers: only their labels need to be checked."""

    def labels_of(self, split: str) -> torch.Tensor:
        """int64 of shape (samples,), on the CPU, in a fixed order."""


class DataComponent(Protocol):
    """The component with the id `data` in a client's configuration."""

    def site(self, name: str, roster: Sequence[str], seed: int) -> SiteData:
        """The share of site `name` among the sites of `roster`, drawn with `seed`.

        Raises:
            BundleError: the site is not in the roster, a setting is out of range, or the data are not to be had.
        """
