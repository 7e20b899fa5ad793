# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Gets published files once, however many processes ask at the same time, and compares them with their md5 sums."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.client
import logging
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import Timeout

from custom.data.folders import check_no_images
from custom.data.once import make_once
from custom.errors import BundleError

TIMEOUT_S = 10.0  # to connect, and for each read
UNREADABLE = (OSError, EOFError, zlib.error)  # what `read_bytes` raises

logger = logging.getLogger(__name__)


class Unavailable(BundleError):
    """The data are not there and cannot be downloaded."""


class Remote(Protocol):
    """A file, or a folder that comes in an archive."""

    @property
    def title(self) -> str:
        """What people call it."""

    @property
    def target(self) -> str:
        """Where it belongs, below the data folder."""

    @property
    def url(self) -> str:
        """Where it is published."""

    def retrieve(self, work: Path) -> Path:
        """Downloads to the folder `work` and compares checksums; returns what is to be moved to `target`.

        Raises:
            BundleError: a wrong checksum.
        """


@dataclass(frozen=True)
class RemoteFile:
    """A single file; see `Remote`."""

    title: str
    target: str
    url: str
    md5: str

    def retrieve(self, work: Path) -> Path:
        """See `Remote.retrieve`."""
        path = work / Path(self.target).name
        fetch(self.url, path, self.md5)
        return path


def download(root: Path, remote: Remote) -> Path:
    """Makes sure that `root` holds the file or folder; returns its path. What is there already is not looked at.

    torchvision's own downloader is not used: it has no time-out, and extracts in place.

    Raises:
        Unavailable: no network, no room, no permission, or a wrong checksum; nothing half-written stays behind.
        BundleError: `root` is a folder of images.
    """
    path = root / remote.target
    if not path.exists():
        check_no_images(root, f"a folder that holds {remote.target}, or an empty one to download to")

    def retrieve(work: Path) -> Path:
        logger.info("downloading %s to %s", remote.url, path)
        return remote.retrieve(work)

    try:
        if not root.exists():
            _check_answers(remote.url)  # else a mistyped path would become a folder
        make_once(path, retrieve)
    except (OSError, Timeout, http.client.HTTPException, tarfile.TarError, EOFError, BundleError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Unavailable(
                f"{remote.title} is not there, and cannot be put there",
                code="data-missing",
                key=str(path),
                got=error.strerror,
                remedy=f"let this user write to {path.parent}, let another put {path.name} there, or point "
                f"dataset_path or FLARE_DATA_ROOT at a folder that has {remote.target}",
            ) from error
        raise Unavailable(
            f"{remote.title} is not there and cannot be downloaded from {remote.url}",
            code="data-missing",
            key=str(path),
            got=error,
            remedy=f"copy {path.name} to {path.parent}, or point dataset_path or FLARE_DATA_ROOT at the folder that "
            f"{remote.target} lies in",
        ) from error
    return path


def _check_answers(url: str) -> None:
    """Raises OSError where there is no network."""
    with contextlib.suppress(urllib.error.HTTPError):  # the server is there, and this is the folder of its files
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_S).close()


def fetch(url: str, path: Path, md5: str) -> None:
    """Downloads one file.

    Raises:
        BundleError: a wrong checksum.
        OSError, http.client.HTTPException: no network, or no room.
    """
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file, 2**20)
    if (got := _md5(path)) != md5:
        raise BundleError(code="data-damaged", key=url, expected=f"md5 {md5}", got=got)


def check_md5(path: Path, md5: str, whole: Path) -> None:
    """Compares a file with its md5 sum.

    Args:
        path: the file.
        md5: of the file as it was published.
        whole: what to delete when it is damaged: the file, or the folder it came with.

    Raises:
        BundleError: the file is missing, truncated or corrupt.
    """
    try:
        got = f"{_md5(path)} ({path.stat().st_size:,} bytes)"
    except PermissionError:  # which says what is wrong, and nothing of the file
        raise
    except OSError as error:
        got = error.strerror or str(error)
    if not got.startswith(md5):
        raise damaged(path, f"md5 {md5}", got, whole)


def has_md5(path: Path, md5: str) -> bool:
    """Is the file whole?"""
    try:
        return _md5(path) == md5
    except OSError:
        return False


def damaged(path: Path, expected: str, got: str, whole: Path) -> BundleError:
    """The error about a published file that is there, and is not what was published."""
    return BundleError(
        "missing, truncated or corrupt",
        code="data-damaged",
        key=str(path),
        expected=expected,
        got=got,
        remedy=f"delete {whole} to have it downloaded again, or point dataset_path or FLARE_DATA_ROOT at a good copy",
    )


def read_bytes(path: Path) -> bytes:
    """All of a file, unpacked if its name ends in `.gz`.

    Raises:
        OSError, EOFError, zlib.error: it cannot be read, or is cut off or damaged.
    """
    if path.suffix != ".gz":
        return path.read_bytes()
    with gzip.open(path) as file:
        return file.read()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
