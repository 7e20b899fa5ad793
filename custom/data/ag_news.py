# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Reads AG News, news headlines of four topics, from the two CSV files in which it is published.

Zhang, Zhao and LeCun 2015, https://arxiv.org/abs/1509.01626. Addresses and checksums are those of torchtext.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from custom.data.csv_rows import bad_row
from custom.data.download import download, fetch
from custom.data.news_rows import NewsRows, read_news

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
TARGET = "ag_news/ag_news_csv"
MD5 = {"train.csv": "b1a00f826fdfbd249f79597b59e1dc12", "test.csv": "d52ea96a97a2d943681189a97654912d"}
URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"


@dataclass(frozen=True)
class Texts:
    """Texts and their int64 labels, 0 to 3, of shape (texts,)."""

    labels: NDArray[np.int64]
    texts: Sequence[str]


@dataclass(frozen=True)
class TextSource:
    """The official splits `train` and `test` of a data set, how many rows were not used, by reason, and warnings."""

    name: str
    embedded: bool
    splits: dict[str, Texts]
    left_out: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

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
        BundleError: a file is missing or is not what it should be; see `read_csv`. Labels are looked at in both
            files together.
    """
    places = (root / TARGET, root / Path(TARGET).name, root)
    folder = next((place for place in places if any((place / name).exists() for name in MD5)), None)
    folder = folder or download(root, AgNewsFiles())
    files = {split: read_news(folder / f"{split}.csv", CLASSES) for split in ("train", "test")}
    first = first_label(list(files.values()))
    splits = {split: Texts(_classes(rows, first), rows.texts) for split, rows in files.items()}
    left_out: Counter[str] = Counter()
    for rows in files.values():
        left_out.update(rows.left_out)
    warnings = [warning for rows in files.values() for warning in rows.warnings]
    if repeated := len(set(splits["train"].texts) & set(tested := splits["test"].texts)):
        some = f"texts of test.csv that are also in train.csv: {repeated:,} of {len(tested):,}"
        warnings.append(f"{some}; scores are too good by them")
    return TextSource("AG News", False, splits, dict(left_out), warnings)


def read_csv(path: Path) -> tuple[Texts, dict[str, int]]:
    """The texts of one file, title and description in one, and how many rows were not used, by reason.

    Raises:
        BundleError: see `custom.data.news_rows.read_news` and `first_label`.
    """
    rows = read_news(path, CLASSES)
    return Texts(_classes(rows, first_label([rows])), rows.texts), rows.left_out


def first_label(files: Sequence[NewsRows]) -> int:
    """0 or 1: the number of the class World.

    Published files count from 1, and so do those with a column `Class Index`, or beside the published `classes.txt`;
    the Hugging Face Hub counts from 0. A 0 or a 4 tells which. Where there is neither, and nothing else says it, it
    is not guessed: all labels would be wrong by one.

    Raises:
        BundleError: there are both, or neither.
    """
    numbered = [rows for rows in files if (rows.labels >= 0).any()]
    from_zero = [(rows, line) for rows in numbered if (line := rows.line_with(0)) is not None]
    has_last = any(rows.line_with(len(CLASSES)) is not None for rows in numbered)
    if from_zero and (has_last or any(rows.from_one for rows in numbered)):
        remedy = "number the classes alike in all rows, or write their names; without a row of names they count from 1"
        raise bad_row(from_zero[0][0].path, from_zero[0][1], f"a label from 1 to {len(CLASSES)}", "'0'", remedy)
    if from_zero:
        return 0
    if not numbered or has_last or any(rows.from_one or _has_published_names(rows.path) for rows in numbered):
        return 1
    numbers = {label for rows in numbered for label in rows.labels.tolist() if label >= 0}
    raise bad_row(
        numbered[0].path,
        None,
        f"labels that tell whether they begin with 0 or 1: a 0, or a {len(CLASSES)}",
        f"only {', '.join(map(str, sorted(numbers)))}",
        f"write {', '.join(CLASSES)} in place of numbers; or, if 1 is {CLASSES[0]}, name the column Class Index",
    )


def _has_published_names(path: Path) -> bool:
    """Does `classes.txt` lie beside the file, which the published numbers are explained by?"""
    try:
        names = path.with_name("classes.txt").read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return False
    return len(names) == len(CLASSES) and names[0] == CLASSES[0]


def _classes(rows: NewsRows, first: int) -> NDArray[np.int64]:
    return np.where(rows.labels < 0, -1 - rows.labels, rows.labels - first)
