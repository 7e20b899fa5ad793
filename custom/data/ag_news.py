# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Reads AG News, news headlines of four topics, from the two CSV files in which it is published.

Zhang, Zhao and LeCun 2015, https://arxiv.org/abs/1509.01626. Addresses and checksums are those of torchtext.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from custom.data.download import download, fetch
from custom.errors import BundleError

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
TARGET = "ag_news/ag_news_csv"
MD5 = {"train.csv": "b1a00f826fdfbd249f79597b59e1dc12", "test.csv": "d52ea96a97a2d943681189a97654912d"}
URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
COLUMNS = {"label": ("label", "class index", "class"), "title": ("title",), "description": ("description",)}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Texts:
    """Texts and their int64 labels, 0 to 3, of shape (texts,)."""

    labels: NDArray[np.int64]
    texts: Sequence[str]


@dataclass(frozen=True)
class TextSource:
    """The official splits `train` and `test` of a data set; `skipped` rows had no text."""

    name: str
    embedded: bool
    splits: dict[str, Texts]
    skipped: int = 0

    def digest(self) -> str:
        """Tells one content from another: 12 hexadecimal digits."""
        md5 = hashlib.md5(usedforsecurity=False)
        for split in ("train", "test"):
            md5.update(self.splits[split].labels.astype("<i8").tobytes())
            md5.update("\0".join(self.splits[split].texts).encode())
        return md5.hexdigest()[:12]


@dataclass(frozen=True)
class AgNewsFiles:
    """What `custom.data.download` gets when there is nothing yet; see `custom.data.download.Remote`."""

    title: str = "AG News"
    target: str = TARGET
    url: str = URL

    def retrieve(self, work: Path) -> Path:
        """Both files, in `work`."""
        for name, md5 in MD5.items():
            fetch(f"{self.url}/{name}", work / name, md5)
        return work


def open_ag_news(root: Path) -> TextSource:
    """AG News below `root`: in `ag_news/ag_news_csv`, in `ag_news_csv` or in `root` itself, or downloaded.

    Raises:
        Unavailable: it is not there and cannot be downloaded.
        BundleError: a file is missing or is not what it should be; see `read_csv`.
    """
    places = (root / TARGET, root / Path(TARGET).name, root)
    folder = next((place for place in places if any((place / name).exists() for name in MD5)), None)
    folder = folder or download(root, AgNewsFiles())
    splits, skipped = {}, 0
    for split in ("train", "test"):
        splits[split], blank = read_csv(folder / f"{split}.csv")
        skipped += blank
    return TextSource("AG News", False, splits, skipped)


def read_csv(path: Path) -> tuple[Texts, int]:
    """The texts of one file, title and description in one, and the number of rows skipped since they have no text.

    A first row with the names of the columns is allowed, and then they may come in any order.

    Raises:
        BundleError: no file, no rows, not UTF-8, columns missing, cut off, or a label that is not 1 to 4.
    """
    labels: list[int] = []
    texts: list[str] = []
    rows = 0
    for line, (label, title, description) in _rows(path):
        if not _is_integer(label) or not 1 <= int(label) <= len(CLASSES):
            raise _bad(path, line, f"a label from 1 to {len(CLASSES)}", repr(label[:40]))
        rows += 1
        if text := f"{title} {description}".replace("\\", " ").strip():  # where a line of the page ended
            labels.append(int(label) - 1)
            texts.append(text)
    if not texts:
        raise _bad(path, None, "at least one row with a text", f"{rows} rows")
    if skipped := rows - len(texts):
        logger.warning("%s: %d rows have no text and are skipped", path, skipped)
    return Texts(np.array(labels, dtype=np.int64), texts), skipped


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number of the last line, and label, title and description, of every row."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    order: Sequence[int] | None = None
    try:
        for row in reader:
            if order is None:
                order, is_header = _columns(path, row)
                if is_header:
                    continue
            if row and len(row) <= max(order):
                raise _bad(path, reader.line_num, "label, title and description", f"{len(row)} columns")
            if row:
                yield reader.line_num, [row[column] for column in order]
    except csv.Error as error:
        raise _bad(path, reader.line_num, "rows of a CSV file, each whole", str(error)) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _bad(path, None, "train.csv and test.csv in one folder", error.strerror) from error
    except UnicodeDecodeError as error:
        raise _bad(path, None, "UTF-8", f"byte {error.object[error.start]:#x} at {error.start}") from error


def _columns(path: Path, first: list[str]) -> tuple[Sequence[int], bool]:
    """Where label, title and description are, and whether the first row is one of names."""
    names = [cell.strip().lower() for cell in first]
    if not {name for known in COLUMNS.values() for name in known} & set(names):
        return (0, 1, 2), False
    places = [next((place for place, name in enumerate(names) if name in known), -1) for known in COLUMNS.values()]
    if missing := [key for key, place in zip(COLUMNS, places, strict=True) if place < 0]:
        raise _bad(path, 1, "columns label, title and description", f"no {' and no '.join(missing)}")
    return places, True


def _is_integer(cell: str) -> bool:
    return cell.strip().isascii() and cell.strip().isdigit()


def _bad(path: Path, line: int | None, expected: str, got: object) -> BundleError:
    return BundleError(
        code="data-malformed",
        key=f"{path} line {line}" if line is not None else str(path),
        expected=expected,
        got=got,
        remedy="correct the file, or point dataset_path or FLARE_DATA_ROOT at a good copy",
    )
