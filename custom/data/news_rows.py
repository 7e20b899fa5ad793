# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Labelled texts in one CSV file: which columns they are in, and how the file writes their classes.

Without a row of names the columns are label, title and description, as published. With one they may come in any order:
the label, and a title and a description, or a text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from custom.data.csv_rows import Row, bad_row, read_rows

LABEL = ("class index", "label", "class")  # the first as the published numbers are called where they have a name
TITLE, BODY = ("title",), ("description", "text")
NO_TEXT = "rows without text"
QUOTES = "put texts that hold commas in double quotes"

_NEXT_ROW = re.compile(r'\n\s*"?[0-4]"?\s*,\s*\D')

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """Where things are: in `label`, and in `texts` one after the other; `width` cells a row."""

    label: int
    texts: tuple[int, ...]
    width: int
    has_names: bool = False
    from_one: bool = False


@dataclass(frozen=True)
class NewsRows:
    """The rows of a file that have a text.

    Attributes:
        path: of the file.
        labels: int64, as in the file; -1 - k where the name of class k is written.
        lines: in which each row begins.
        texts: all text columns of a row, with a blank between them.
        from_one: the form of the file says that numbers begin with 1.
        left_out: how many rows were not used, by reason.
        warnings: of rows that look like something else.
    """

    path: Path
    labels: NDArray[np.int64]
    lines: Sequence[int]
    texts: Sequence[str]
    from_one: bool
    left_out: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def line_with(self, label: int) -> int | None:
        """The first line with this number as the label, or None."""
        places = np.flatnonzero(self.labels == label)
        return self.lines[places[0]] if len(places) else None


def read_news(path: Path, classes: Sequence[str]) -> NewsRows:
    """The texts of a file with labels 0 to 3 or 1 to 4 (for 4 classes), or the names of the classes.

    Raises:
        BundleError: see `custom.data.csv_rows.read_rows`; columns are missing, a row has another number of cells than
            the others, or a label is something else. It names the first such line, and says how many there are.
    """
    rows = read_rows(path)
    columns = _columns(path, rows[0][1], classes) if rows else Columns(0, (1, 2), 3)
    rows = rows[columns.has_names :]
    filled = [row for row in rows if any(cell and not cell.isspace() for cell in row[1])]
    _check_widths(path, filled, columns)
    labels = _labels(path, filled, columns, classes)
    warnings = _check_texts(path, filled, columns)
    # A backslash is where a line of the page ended.
    texts = [" ".join(cells[place] for place in columns.texts).replace("\\", " ").strip() for _, cells in filled]
    kept = [place for place, text in enumerate(texts) if text]
    if not kept:
        raise bad_row(path, None, "at least one row with a text", f"{len(rows)} rows", "give the whole file")
    return NewsRows(
        path,
        np.array(labels, dtype=np.int64)[kept],
        [filled[place][0] for place in kept],
        [texts[place] for place in kept],
        columns.from_one or (not columns.has_names and _is_quoted(path)),
        {NO_TEXT: len(rows) - len(kept)} if len(kept) < len(rows) else {},
        warnings,
    )


def _columns(path: Path, first: list[str], classes: Sequence[str]) -> Columns:
    """Of the published form, unless the first row has names."""
    names = [cell.strip().lower() for cell in first]
    if names == ["0", "1", "2"]:  # what pandas writes for columns without names
        return Columns(0, (1, 2), 3, has_names=True)
    if _label(first[0], classes) is not None or not {*LABEL, *TITLE, *BODY} & set(names):
        return Columns(0, (1, 2), 3)
    label, title, body = (next((name for name in known if name in names), "") for known in (LABEL, TITLE, BODY))
    if not label or not body or (body == "description" and not title):
        remedy = "name the columns Class Index, Title and Description, or label and text"
        raise bad_row(path, 1, "columns label, title and description, or label and text", ", ".join(names), remedy)
    used = [name for name in (title, body) if name]
    if twice := [name for name in (label, *used) if names.count(name) > 1]:
        raise bad_row(path, 1, "each column once", f"{twice[0]} twice", "rename one of them")
    if unread := [name for name in names if name not in (label, *used)]:
        logger.info(
            "%s: columns that are not read: %s", path, ", ".join(name or "one without a name" for name in unread)
        )
    places = tuple(names.index(name) for name in used)
    return Columns(names.index(label), places, len(names), has_names=True, from_one=label == LABEL[0])


def _check_widths(path: Path, rows: Sequence[Row], columns: Columns) -> None:
    """A comma in a text without quotes makes a cell too many, and where it was cannot be told."""
    width = columns.width
    wrong = [row for row in rows if len(row[1]) != width and (len(row[1]) < width or "".join(row[1][width:]).strip())]
    if not wrong:
        return
    (line, cells), some = wrong[0], f"; so in {len(wrong)} of {len(rows)} rows" if len(wrong) > 1 else ""
    got = f"{len(cells)} columns: {cells[0][:40]!r} ...{some}"
    expected = f"{width} columns" if columns.has_names else "3 columns: label, title and description"
    remedy = QUOTES if len(cells) > width else "separate the columns by commas, and make each row whole"
    if len(cells) == width + 1 and not columns.has_names and _is_integer(cells[0]) and _is_integer(cells[1]):
        remedy = "leave out the column of row numbers (pandas: index=False)"
    elif not columns.has_names and all(len(row[1]) == 2 for row in rows):
        remedy = "begin the file with the names of its columns, such as text,label"
    raise bad_row(path, line, expected, got, remedy)


def _labels(path: Path, rows: Sequence[Row], columns: Columns, classes: Sequence[str]) -> list[int]:
    written = [cells[columns.label] for _, cells in rows]
    known = {cell: _label(cell, classes) for cell in set(written)}
    found = [known[cell] for cell in written]
    wrong = [place for place, label in enumerate(found) if label is None]
    if wrong:
        some = f"; {len(wrong)} of {len(rows)} rows have such labels" if len(wrong) > 1 else ""
        expected = f"a label from 1 to {len(classes)}, or one of {', '.join(classes)}"
        got = f"{written[wrong[0]][:40]!r}{some}"
        raise bad_row(path, rows[wrong[0]][0], expected, got, "correct the labels")
    return [label for label in found if label is not None]


def _label(cell: str, classes: Sequence[str]) -> int | None:
    """The number, or -1 - k for the name of class k, or None."""
    cell = cell.strip()
    if _is_integer(cell):
        return int(cell) if len(cell) < 3 and int(cell) <= len(classes) else None
    names = [name.lower() for name in classes]
    return -1 - names.index(cell.lower()) if cell.lower() in names else None


def _check_texts(path: Path, rows: Sequence[Row], columns: Columns) -> list[str]:
    """Columns in another order have labels for texts, and a quote that is closed too late joins rows: a warning."""
    last = columns.texts[-1]
    if rows and not columns.has_names and all(_is_integer(cells[last].strip()) for _, cells in rows):
        remedy = "begin the file with the names of its columns, such as text,label"
        raise bad_row(path, rows[0][0], "a description in column 3", repr(rows[0][1][last][:40]), remedy)
    several = [(line, cells[place]) for line, cells in rows for place in columns.texts if "\n" in cells[place]]
    joined = [line for line, text in several if _NEXT_ROW.search(text)]
    if not joined:
        return []
    some = f"texts of {path.name} that go on over a line that begins like a row of its own: {len(joined)}"
    return [f"{some}, the first in line {joined[0]}; is a quote not closed?"]


def _is_quoted(path: Path) -> bool:
    """Does the file begin with a quote, as the published ones do?"""
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b'"')


def _is_integer(cell: str) -> bool:
    return cell.isascii() and cell.isdigit()
