# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The component with the id `data` of chest-xray: which images, and how their patients are split over the sites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from custom.data import pneumonia_mnist
from custom.data.chest_xray import open_chest_xray
from custom.data.component import check, check_choice, check_folder_name
from custom.data.folders import cache_folder, contents, data_root
from custom.data.image_batches import ImageSiteData, Pool
from custom.data.partition import Indices
from custom.data.remarks import Remarks
from custom.data.split import Split
from custom.data.synthetic_xrays import make_xrays
from custom.data.xray_files import FOLDER, find_folder, subfolder
from custom.data.xrays import CLASSES, Xrays
from custom.errors import BundleError

DATA_SETS = ("auto", "chest_xray", "pneumoniamnist", "synthetic")
JPEG_SIDE = 64  # what JPEGs become where nothing else is said
KAGGLE = "https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia"


class XrayData:
    """Chest X-rays, 0 normal and 1 pneumonia; a patient is in one split of one site; see `DataComponent`.

    Args:
        dataset: `chest_xray`, a folder of JPEGs; `pneumoniamnist`, one file; `auto`, the folder or else the file;
            `synthetic`, images that are generated, and taken only if this says so.
        dataset_path: the folder that holds `chest_xray` or `pneumoniamnist.npz`. FLARE_DATA_ROOT overrides it.
        image_size: pixels a side; None leaves PneumoniaMNIST as it is, and makes all others 64.
        cache_dir: where image files are kept after they were resized. FLARE_CACHE_DIR overrides it.
        partition: `iid`, `dirichlet`, or `none` for a site that holds data of its own.
        alpha: of `dirichlet`; the smaller, the more the sites differ.
        validation_fraction: of a site's training patients, in (0, 1).
        augment: crop the training images at random.
    """

    also_called: ClassVar = {"data": "dataset"}  # `--set data=synthetic`, see bundle.settings

    def __init__(
        self,
        dataset: str = "auto",
        dataset_path: str = "~/.cache/flare-bundle",
        image_size: int | None = None,
        cache_dir: str = "~/.cache/flare-bundle",
        partition: str = "iid",
        alpha: float = 0.5,
        validation_fraction: float = 0.1,
        augment: bool = False,
    ) -> None:
        self.dataset, self.dataset_path, self.image_size, self.cache_dir = dataset, dataset_path, image_size, cache_dir
        self.augment = augment
        self.split = Split(partition, alpha, validation_fraction)

    def check(self) -> None:
        """Looks at the settings; called by `site`, and by `bundle export` before a job leaves.

        Raises:
            BundleError: one is out of range.
        """
        check_choice("dataset", self.dataset, DATA_SETS)
        check_choice("augment", self.augment, (False, True))
        check_folder_name("dataset_path", self.dataset_path)
        check_folder_name("cache_dir", self.cache_dir)
        side = self.image_size
        check(side is None or (type(side) is int and 16 <= side <= 1024), "image_size", "16 to 1024 pixels", side)
        self.split.check()

    def site(self, name: str, roster: Sequence[str], seed: int) -> ImageSiteData:
        """The share of site `name` among the sites of `roster`, in any order, drawn with `seed`.

        Raises:
            BundleError: the site is not in the roster, has too few patients, or the data are not to be had.
        """
        self.check()
        source = self._source()
        patients = {split: source.patients(split) for split in ("train", "test")}
        labels = source.label_of(patients["train"]), source.label_of(patients["test"])
        held = self.split.of_site(name, roster, seed, labels, len(CLASSES))
        pools = {
            split: _pool(source, patients["test" if split == "test" else "train"][rows]) for split, rows in held.items()
        }
        one_class = [warning for split, pool in pools.items() for warning in _of_one_class(split, pool.labels)]
        return ImageSiteData(
            source,
            pools,
            {split: (split, torch.arange(len(pool.labels))) for split, pool in pools.items()},
            self.augment,
            # Else a patient could be tested on at one site and trained on at another.
            {"digest": source.digest()} if self.split.shared else {},
            Remarks(source.left_out, [*source.warnings, *one_class], source.notes),
        )

    def _source(self) -> Xrays:
        if self.dataset == "synthetic":
            return make_xrays(self.image_size or JPEG_SIDE)
        root = data_root(self.dataset_path)
        folder = find_folder(root) if self.dataset in ("auto", "chest_xray") else None
        if folder is not None:
            return open_chest_xray(folder, self.image_size or JPEG_SIDE, cache_folder(self.cache_dir))
        file = pneumonia_mnist.find_file(root) if self.dataset in ("auto", "pneumoniamnist") else None
        if file is not None:
            return pneumonia_mnist.open_pneumonia_mnist(file, self.image_size)
        raise _nothing_there(root)


def _pool(source: Xrays, patients: Indices) -> Pool:
    rows = source.rows(patients)
    images = torch.from_numpy(np.asarray(source.images[rows])).permute(0, 3, 1, 2)
    return Pool(images, torch.from_numpy(np.asarray(source.labels[rows])))


def _of_one_class(split: str, labels: torch.Tensor) -> list[str]:
    present = labels.unique().tolist()
    return [f"all {split} images are {CLASSES[present[0]]}: no AUC"] if len(present) == 1 else []


def _seen(root: Path) -> str:
    inner = subfolder(root, FOLDER)
    return f"{contents(inner)} in {inner}" if inner else contents(root)


def _nothing_there(root: Path) -> BundleError:
    return BundleError(
        "there are no chest X-rays",
        code="data-missing",
        key=str(root),
        expected=f"the folder {FOLDER} with train and test, or {pneumonia_mnist.FILE}",
        got=_seen(root),
        remedy=f"unpack {KAGGLE} to {root / FOLDER}, or copy {pneumonia_mnist.URL} (4 MB) to {root}, or point "
        "dataset_path or FLARE_DATA_ROOT at the folder that holds one; to try the job out on generated images: "
        "python -m bundle run chest-xray --set dataset=synthetic",
    )
