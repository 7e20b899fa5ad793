# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Gets CIFAR-10 once, however many processes ask at the same time."""

from __future__ import annotations

import http.client
import logging
import shutil
import tarfile
import urllib.request
from pathlib import Path

from filelock import FileLock, Timeout

from custom.data.cifar10 import FOLDER, BatchFiles, check_folder
from custom.errors import BundleError

TIMEOUT_S = 10.0  # to connect, and for each read
LOCK_TIMEOUT_S = 3600.0  # another process is downloading

logger = logging.getLogger(__name__)


class Unavailable(BundleError):
    """The data are not there and cannot be downloaded."""


def download(root: Path, files: BatchFiles) -> Path:
    """Makes sure that `root` holds the batch files; returns their folder.

    Everything happens in a temporary folder inside `root`, and the batch files move into place when all checksums are
    right. torchvision's own downloader is not used: it has no time-out, and extracts in place.

    Raises:
        Unavailable: no network, no room, no permission, or a wrong checksum; nothing half-written stays behind.
    """
    folder = root / FOLDER
    if folder.exists():  # also on a read-only disk, where no lock could be made
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{FOLDER}.lock", timeout=LOCK_TIMEOUT_S):
            if not folder.exists():
                _download_locked(folder, files)
    except (OSError, Timeout, http.client.HTTPException, tarfile.TarError, EOFError, BundleError) as error:
        raise Unavailable(
            f"CIFAR-10 is not there and cannot be downloaded from {files.url}",
            key=str(folder),
            got=error,
            remedy=f"copy {FOLDER} to {root}, or point dataset_path or FLARE_DATA_ROOT at the folder it lies in",
        ) from error
    return folder


def _download_locked(folder: Path, files: BatchFiles) -> None:
    work = folder.with_name(f".{FOLDER}.part")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed; the lock is ours
    try:
        work.mkdir()
        logger.info("downloading %s to %s", files.url, folder)
        archive = work / "archive.tar.gz"
        _fetch(files, archive)
        with tarfile.open(archive) as tar:
            tar.extractall(work, filter="data")
        check_folder(work / FOLDER, files)
        (work / FOLDER).replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fetch(files: BatchFiles, archive: Path) -> None:
    from torchvision.datasets.utils import calculate_md5

    with urllib.request.urlopen(files.url, timeout=TIMEOUT_S) as response, archive.open("wb") as file:
        shutil.copyfileobj(response, file, 2**20)
    if (got := calculate_md5(archive)) != files.archive_md5:
        raise BundleError(key=files.url, expected=f"md5 {files.archive_md5}", got=got)
