# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Rows of a CSV file (RFC 4180: commas, texts with commas in double quotes, UTF-8), each with its line.

What is not in that form is refused with the line where it begins: a parser that guesses would cut texts or join rows.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from pathlib import Path

from custom.errors import BundleError

Row = tuple[int, list[str]]  # the line that it begins in, from 1, and its cells

_FIRST_SEPARATOR = re.compile(r'\s*(?:"[^"\n]*"|[^",;\t|\n]*)[ ]*([,;\t|])')
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_OTHER_FILES = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "a gzip archive",
    b"PK": "a zip archive",
}

logger = logging.getLogger(__name__)


class _BrokenError(Exception):
    """A quote that does not end as it should.

    Args:
        line: where the quoted cell begins.
        got: what is wrong with it.
    """

    def __init__(self, line: int, got: str) -> None:
        super().__init__(got)
        self.line, self.got = line, got


def read_rows(path: Path) -> list[Row]:
    r"""All rows but blank lines. Blanks after a comma are skipped; quotes in a text are doubled, or written `\"`.

    Raises:
        BundleError: no file, not UTF-8, another separator than commas, or a quote that is never closed.
    """
    text = _text(path)
    found = _FIRST_SEPARATOR.match(text)
    if found and found[1] in _SEPARATORS:
        remedy = "save the file with commas between the columns, and quotes around texts that hold commas"
        raise bad_row(path, 1, "columns separated by commas", _SEPARATORS[found[1]], remedy)
    try:
        return _parse(text)
    except _BrokenError as error:
        if '\\"' in text:
            try:
                rows = _parse(text.replace('\\"', '""'))
            except _BrokenError:
                pass  # then that is not what is wrong
            else:
                logger.info('%s: read with \\" as a quote within a text', path)
                return rows
        remedy = "close the quote, or double it where it belongs to the text"
        raise bad_row(
            path, error.line, "a text in quotes that is closed and ends its cell", error.got, remedy
        ) from None


def bad_row(path: Path, line: int | None, expected: str, got: object, remedy: str) -> BundleError:
    """The error about a file, or about the row that begins in a line."""
    return BundleError(
        code="data-malformed",
        key=f"{path} line {line}" if line is not None else str(path),
        expected=expected,
        got=got,
        remedy=f"{remedy} (or point dataset_path or FLARE_DATA_ROOT at a good copy)",
    )


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except PermissionError:
        raise
    except OSError as error:
        raise bad_row(
            path, None, "train.csv and test.csv in one folder", error.strerror, "copy the file there"
        ) from error
    if b"\0" in content[:100] and not content.startswith(tuple(_OTHER_FILES)):
        raise bad_row(path, 1, "UTF-8", "zeros between the letters: UTF-16?", "save the file as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        other = next((name for start, name in _OTHER_FILES.items() if content.startswith(start)), "")
        got = other or f"byte {content[error.start]:#x} at {error.start}"
        remedy = "unpack it" if "archive" in other else "save the file as CSV in UTF-8"
        raise bad_row(path, line, "UTF-8", got, remedy) from error


def _parse(text: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    rows: list[Row] = []
    line = 1
    limit = csv.field_size_limit(max(len(text), 1))  # a text may be long; and an open quote goes on to the end
    try:
        for row in reader:
            if row:
                rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        opened = _quote_opened(text, line)
        never = "unexpected end" in str(error)
        got = "no closing quote" if never else f"more after a closing quote in line {reader.line_num}"
        raise _BrokenError(opened, got) from error
    finally:
        csv.field_size_limit(limit)
    return rows


def _quote_opened(text: str, line: int) -> int:
    """The line of the quote that opened the cell which the row that begins in `line` cannot be read for."""
    opened, fresh, quoted, closed = line, True, False, False
    for number, characters in enumerate(io.StringIO(text, newline=""), start=1):
        for character in characters if number >= line else "":
            if quoted:
                quoted, closed = character != '"', character == '"'
            elif closed and character not in ',"\r\n':
                return opened
            elif character == '"' and (closed or fresh):
                opened = opened if closed else number
                quoted, closed, fresh = True, False, False
            else:
                fresh, closed = character in ",\r\n" or (fresh and character == " "), False
    return opened
