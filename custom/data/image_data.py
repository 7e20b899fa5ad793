# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The component with the id `data` of the image jobs: which images, and how they are split over the sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from custom.data import mnist
from custom.data.chosen_classes import ChosenClasses
from custom.data.cifar10 import FOLDER, Cifar10, find_folder, official_files
from custom.data.component import check, check_choice, check_folder_name, or_embedded
from custom.data.digits import Digits
from custom.data.folders import data_root
from custom.data.image_batches import ImageSiteData, Pool
from custom.data.image_source import ImageSource
from custom.data.split import Split


class ImageData:
    """Images in 10 classes; see `custom.data.site_data.DataComponent`.

    Args:
        dataset: `cifar10`, `mnist`, or `digits`, which needs no download.
        dataset_path: the folder that holds, or is to hold, `cifar-10-batches-py` or `MNIST/raw`. FLARE_DATA_ROOT
            overrides it.
        on_missing: when the data are not to be had, take the `embedded` digits with a warning, or make it an `error`.
        grey: digits as they are, 1 x 28 x 28; else all images are 3 x 32 x 32.
        classes: keep only these, numbered anew from 0; None keeps all.
        partition: `iid`, `dirichlet`, `k_classes`, or `none` for a site that holds data of its own.
        alpha: of `dirichlet`; the smaller, the more the sites differ.
        classes_per_site: of `k_classes`.
        validation_fraction: of a site's training samples, in (0, 1).
        augment: crop (and mirror, for CIFAR-10) the training images at random.
    """

    def __init__(
        self,
        dataset: str = "cifar10",
        dataset_path: str = "~/.cache/flare-bundle",
        on_missing: str = "embedded",
        grey: bool = False,
        classes: list[int] | None = None,
        partition: str = "iid",
        alpha: float = 0.5,
        classes_per_site: int = 2,
        validation_fraction: float = 0.1,
        augment: bool = False,
    ) -> None:
        self.dataset, self.dataset_path, self.on_missing = dataset, dataset_path, on_missing
        self.grey, self.classes, self.augment = grey, classes, augment
        self.split = Split(partition, alpha, validation_fraction, classes_per_site)

    def check(self) -> None:
        """Looks at the settings; called by `site`, and by `bundle export` before a job leaves.

        Raises:
            BundleError: one is out of range.
        """
        check_choice("dataset", self.dataset, ("cifar10", "mnist", "digits"))
        check_choice("on_missing", self.on_missing, ("embedded", "error"))
        check_choice("augment", self.augment, (False, True))
        greys = (False,) if self.dataset == "cifar10" else (False, True)
        check_choice("grey", self.grey, greys)
        kept = self.classes
        several = isinstance(kept, list) and len(kept) > 1 and all(type(c) is int and 0 <= c <= 9 for c in kept)
        check(kept is None or (several and len({*kept}) == len(kept)), "classes", "two or more of 0 to 9", kept)
        check_folder_name("dataset_path", self.dataset_path)
        self.split.check()

    def site(self, name: str, roster: Sequence[str], seed: int) -> ImageSiteData:
        """The share of site `name` among the sites of `roster`, in any order, drawn with `seed`.

        Raises:
            BundleError: the site is not in the roster, has too few samples, or the data are not to be had.
        """
        self.check()
        source = self._source()
        labels = {split: source.labels(split) for split in ("train", "test")}
        chosen = self.split.of_site(name, roster, seed, (labels["train"], labels["test"]), source.num_classes)
        held = {"train": np.union1d(chosen["train"], chosen["validation"]), "test": chosen["test"]}
        pools = {
            split: Pool(source.images(split, rows), torch.from_numpy(labels[split][rows]))
            for split, rows in held.items()
        }
        official = {"train": "train", "validation": "train", "test": "test"}
        places = {
            split: (official[split], torch.from_numpy(np.searchsorted(held[official[split]], rows)))
            for split, rows in chosen.items()
        }
        return ImageSiteData(source, pools, places, self.augment)

    def _source(self) -> ImageSource:
        """All images, of the classes that are wanted."""
        digits = partial(Digits, self.grey)
        loaders: dict[str, tuple[str, Callable[[], ImageSource]]] = {
            "cifar10": (FOLDER, self._cifar10),
            "mnist": (mnist.FOLDER, lambda: mnist.Mnist(data_root(self.dataset_path), self.grey)),
            "digits": ("", digits),
        }
        folder, load = loaders[self.dataset]
        names = f"{Digits.name}, NOT ON {folder}"
        source = or_embedded(load, digits, self.on_missing, names, self.dataset_path)
        return source if self.classes is None else ChosenClasses(source, self.classes)

    def _cifar10(self) -> ImageSource:
        files = official_files()
        return Cifar10(find_folder(data_root(self.dataset_path), files), files)
