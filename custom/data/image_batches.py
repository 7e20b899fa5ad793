# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""One site's images: kept as bytes where they are used, and normalised and augmented a batch at a time.

The augmentation is that of He et al. 2016 (https://arxiv.org/abs/1512.03385), section 4.2: pad by 4, crop, mirror.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from custom.data.image_source import ImageFacts
from custom.data.remarks import Remarks
from custom.data.site_data import Batch

PADDING = 4


@dataclass(frozen=True)
class Pool:
    """Images, uint8 of shape (samples, channels, side, side), and int64 labels of shape (samples,), on one device."""

    images: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> Pool:
        """The same on `device`."""
        return Pool(self.images.to(device), self.labels.to(device))


class ImageSiteData:
    """The splits of one site; see `custom.data.site_data.SiteData`.

    Args:
        source: what is common to all its images.
        pools: the site's images by official split, `train` and `test`.
        rows: for each of `train`, `validation` and `test` the official split and the int64 rows in its pool. Training
            and validation samples share a pool, so that none is held twice.
        augment: crop, and mirror where the source allows it, the training batches that are shuffled.
        facts: more that the sites must agree on.
        remarks: what was left out, what looks wrong, and how the images were read.
    """

    def __init__(
        self,
        source: ImageFacts,
        pools: Mapping[str, Pool],
        rows: Mapping[str, tuple[str, torch.Tensor]],
        augment: bool,
        facts: Mapping[str, Any] | None = None,
        remarks: Remarks | None = None,
    ) -> None:
        self._facts = {
            "dataset": source.name,
            "embedded": source.embedded,
            "num_classes": source.num_classes,
            "input_shape": list(source.shape),
            **(facts or {}),
        }
        self._remarks = remarks or Remarks()
        self._pools, self._rows, self._augment, self._mirrored = pools, rows, augment, source.mirrored
        # (x / 255 - mean) / std as one multiplication and one addition.
        mean, std = torch.tensor(source.mean), torch.tensor(source.std)
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._on_device: dict[tuple[str, torch.device], Pool] = {}

    def describe(self) -> dict[str, Any]:
        """Facts that the sites of one federation must agree on."""
        return dict(self._facts)

    def size(self, split: str) -> int:
        """Number of samples in `split`."""
        return len(self._rows[split][1])

    def counts(self) -> dict[str, int]:
        """Number of samples by split."""
        return {split: self.size(split) for split in ("train", "validation", "test")}

    def left_out(self) -> dict[str, int]:
        """How many files and images were seen and are not used, by reason."""
        return self._remarks.left_out

    def data_warnings(self) -> list[str]:
        """What may make results wrong; see `custom.data.remarks`."""
        return self._remarks.warnings

    def data_notes(self) -> list[str]:
        """How the images were read."""
        return self._remarks.notes

    def labels_of(self, split: str) -> torch.Tensor:
        """int64 of shape (samples,); the images are bytes, and so finite."""
        official, rows = self._rows[split]
        return self._pools[official].labels[rows]

    def batches(
        self, split: str, batch_size: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Normalised float32 images (batch, channels, side, side), channels last, and int64 labels, on `device`.

        With a CPU `generator` the order is shuffled, and `train` augmented if the component says so.
        """
        official, rows = self._rows[split]
        pool = self._pool(official, device)
        pixels = pool.images.shape[2] * pool.images.shape[3]
        scale, shift = (row.to(device).repeat(pixels) for row in (self._scale, self._shift))
        crops: Iterator[torch.Tensor] | None = None
        if generator is not None:
            rows = rows[torch.randperm(len(rows), generator=generator)]
            if self._augment and split == "train":
                crops = iter(torch.split(draw_crops(len(rows), self._mirrored, generator).to(device), batch_size))
        for part in torch.split(rows.to(device), batch_size):
            # index_select is fast along contiguous memory, which channels-last images are when seen that way.
            images = pool.images.permute(0, 2, 3, 1).index_select(0, part)
            if crops is not None:
                images = crop(images.permute(0, 3, 1, 2), next(crops)).permute(0, 2, 3, 1)
            floats = images.flatten(1).float().mul_(scale).add_(shift)
            yield floats.view(images.shape).permute(0, 3, 1, 2), pool.labels.index_select(0, part)

    def _pool(self, official: str, device: torch.device) -> Pool:
        """Moves a pool to a device once."""
        key = (official, torch.device(device))
        if key not in self._on_device:
            self._on_device[key] = self._pools[official].to(device)
        return self._on_device[key]


def draw_crops(num_images: int, mirrored: bool, generator: torch.Generator) -> torch.Tensor:
    """Draws (down, right, mirror) for every image: int64 (num_images, 3), shifts in 0 .. 8, mirror in 0 .. 1."""
    shifts = torch.randint(0, 2 * PADDING + 1, (num_images, 2), generator=generator)
    mirrors = torch.randint(0, 2, (num_images, 1), generator=generator) if mirrored else torch.zeros_like(shifts[:, :1])
    return torch.cat([shifts, mirrors], dim=1)


def crop(images: torch.Tensor, crops: torch.Tensor) -> torch.Tensor:
    """Pads with black, cuts out, mirrors, all in one gather.

    Args:
        images: of shape (batch, channels, side, side).
        crops: what `draw_crops` returns, for these images, on their device.

    Returns:
        Images of the same shape; a shift of 4 and no mirror leave an image as it is.
    """
    batch, channels, side, _ = images.shape
    padded = functional.pad(images, (PADDING,) * 4)
    along = torch.arange(side, device=images.device)
    down, right, mirror = torch.split(crops, 1, dim=1)
    lines = down + along
    columns = right + torch.where(mirror == 1, side - 1 - along, along)
    wanted = lines[:, :, None] * padded.shape[-1] + columns[:, None, :]
    return padded.flatten(2).gather(2, wanted.view(batch, 1, -1).expand(-1, channels, -1)).view_as(images)
