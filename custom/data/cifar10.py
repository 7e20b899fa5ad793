# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""CIFAR-10 (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html) from its original batch files.

torchvision knows their names and checksums; its Dataset is not used, since it holds all images and decodes them one by
one. Getting the files is `custom.data.download`.
"""

from __future__ import annotations

import pickle
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from custom.data.download import check_md5, damaged, download, fetch

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
PIXELS = 3 * 32 * 32
ARRAY_NAMES = {  # what a pickled array asks for, and what it gets
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


@dataclass(frozen=True)
class BatchFiles:
    """Names and md5 sums of the batch files, in order, and their archive; see `custom.data.download.Remote`."""

    title: ClassVar[str] = "CIFAR-10"
    target: ClassVar[str] = FOLDER

    train: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]
    url: str
    archive_md5: str

    def retrieve(self, work: Path) -> Path:
        """See `custom.data.download.Remote.retrieve`."""
        archive = work.parent / ARCHIVE  # where somebody has put it there already
        if not archive.is_file():
            archive = work / ARCHIVE
            fetch(self.url, archive, self.archive_md5)
        _unpack(archive, work / FOLDER)
        check_folder(work / FOLDER, self)
        return work / FOLDER


def _unpack(archive: Path, folder: Path) -> None:
    """The plain files right under FOLDER, and no more. A safe `extractall` came only with Python 3.11.4."""
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            place = PurePosixPath(member.name)
            content = tar.extractfile(member) if member.isfile() and place.parent.name == FOLDER else None
            if content is not None:
                with content, (folder / place.name).open("wb") as file:
                    shutil.copyfileobj(content, file)


def find_folder(root: Path, files: BatchFiles) -> Path:
    """The folder of the batch files: below `root`, or `root` itself; else an archive is unpacked.

    That is one in `root`, or `root` itself, or the one from the network.

    Raises:
        Unavailable: nothing is there and nothing can be downloaded.
        BundleError: the archive that is there is damaged.
    """
    if root.name == ARCHIVE and root.is_file():
        root = root.parent
    if not (root / FOLDER).exists() and any((root / name).is_file() for name, _ in files.train):
        return root
    if not (root / FOLDER).exists() and (root / ARCHIVE).is_file():
        check_md5(root / ARCHIVE, files.archive_md5, root / ARCHIVE)
    return download(root, files)


def official_files() -> BatchFiles:
    """The files that torchvision knows."""
    from torchvision.datasets import CIFAR10  # here, as it costs a second and 160 MB that the digits do not need

    return BatchFiles(
        train=tuple((name, md5) for name, md5 in CIFAR10.train_list),
        test=tuple((name, md5) for name, md5 in CIFAR10.test_list),
        url=CIFAR10.url,
        archive_md5=CIFAR10.tgz_md5,
    )


class Cifar10:
    """A checked folder of batch files; see `custom.data.image_source.ImageSource`. Keeps no images.

    Args:
        folder: holds the batch files.
        files: what they are called and which md5 sums they have.

    Raises:
        BundleError: a file is missing, truncated or corrupt.
    """

    name = "CIFAR-10"
    embedded = False
    num_classes = 10
    shape = (3, 32, 32)
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    mirrored = True

    def __init__(self, folder: Path, files: BatchFiles) -> None:
        check_folder(folder, files)
        self._paths = {
            "train": [folder / name for name, _ in files.train],
            "test": [folder / name for name, _ in files.test],
        }

    def labels(self, split: str) -> NDArray[np.int64]:
        """All labels of `split`, of shape (samples,)."""
        return np.concatenate([read_batch(path)[1] for path in self._paths[split]])

    def images(self, split: str, rows: NDArray[np.int64]) -> torch.Tensor:
        """The images at the ascending `rows` of `split`, one file in memory at a time: uint8 (len(rows), 3, 32, 32)."""
        kept = np.empty((len(rows), 32, 32, 3), dtype=np.uint8)
        first = 0
        for path in self._paths[split]:
            pixels = read_batch(path)[0]
            begin, end = np.searchsorted(rows, (first, first + len(pixels)))
            for start in range(begin, end, 1000):  # a bit at a time, for the sake of the peak of memory
                part = slice(start, min(start + 1000, end))
                kept[part] = pixels[rows[part] - first].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            first += len(pixels)
            del pixels  # before the next file is read
        return torch.from_numpy(kept).permute(0, 3, 1, 2)


def check_folder(folder: Path, files: BatchFiles) -> None:
    """Compares every file with its md5 sum.

    Raises:
        BundleError: names the first file that is missing, truncated or corrupt.
    """
    for name, md5 in (*files.train, *files.test):
        check_md5(folder / name, md5, folder)


def read_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels of shape (samples, 3072) and labels of shape (samples,) of one batch file.

    Raises:
        BundleError: the file is not a batch of CIFAR-10, or asks for anything but arrays.
    """
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="bytes").load()  # "bytes" avoids three copies of the pixels
        pixels, labels = batch[b"data"], np.asarray(batch[b"labels"], dtype=np.int64)
        fits = pixels.dtype == np.uint8 and pixels.shape == (len(labels), PIXELS) and labels.ndim == 1
        if not fits or labels.min() < 0 or labels.max() >= Cifar10.num_classes:
            raise ValueError(f"{pixels.dtype} of shape {pixels.shape} and {len(labels)} labels")
    except Exception as error:  # a damaged pickle can raise anything
        expected = f"a batch of {PIXELS}-byte images and labels 0-9"
        raise damaged(path, expected, f"{error!r}", path.parent) from error
    return pixels, labels


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dicts, lists, bytes, numbers and numpy arrays; refuses everything else, such as `os.system`."""

    def find_class(self, module: str, name: str) -> Any:
        """One of the three names that a pickled array needs."""
        if (module, name) not in ARRAY_NAMES:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        return ARRAY_NAMES[module, name]
