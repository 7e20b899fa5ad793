# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""CSV files of labelled texts as people have them: what is read, and what is refused, and in which line."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest

from custom.data.ag_news import CLASSES, read_csv
from custom.data.news_rows import read_news
from custom.errors import BundleError

PUBLISHED = '"1","War","Peace talks"\n"4","Chips","New, and fast"\n'


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


READ = {
    "published": (PUBLISHED, [(0, "War Peace talks"), (3, "Chips New, and fast")]),
    "byte order mark": ("\ufeff" + PUBLISHED, [(0, "War Peace talks"), (3, "Chips New, and fast")]),
    "CR LF": (PUBLISHED.replace("\n", "\r\n"), [(0, "War Peace talks"), (3, "Chips New, and fast")]),
    "CR": (PUBLISHED.replace("\n", "\r"), [(0, "War Peace talks"), (3, "Chips New, and fast")]),
    "blanks after commas": (
        '3, "Oil, gas", "Up, again"\n4, Chips, New\n',
        [(2, "Oil, gas Up, again"), (3, "Chips New")],
    ),
    "quotes escaped": ('"4","Say \\"no\\", or","a \\"b\\""\n', [(3, 'Say "no", or a "b"')]),
    "quotes escaped and doubled": ('"4","Say \\"no\\"","x"\n"1","a ""b""","y"\n', [(3, 'Say "no" x'), (0, 'a "b" y')]),
    "a backslash before a doubled quote": ('"4","a","\\""b"" c"\n', [(3, 'a  "b" c')]),
    "quotes inside a cell without": ('4,5" screens,New "phones" here\n', [(3, '5" screens New "phones" here')]),
    "empty cells at the end": ('"1","War","Peace",\n4,Chips,New,,\n', [(0, "War Peace"), (3, "Chips New")]),
    "names, any order": ("Title,Description,Class Index\na,b,2\n", [(1, "a b")]),
    "names, quoted": ('"Class Index", "Title", "Description"\n3,Oil,Up\n', [(2, "Oil Up")]),
    "names, index column": (
        ",Class Index,Title,Description\n0,3,Oil,Up\n1,1,War,Peace\n",
        [(2, "Oil Up"), (0, "War Peace")],
    ),
    "names, label and text, from 0": ("text,label\nOil,2\nWar,0\n", [(2, "Oil"), (0, "War")]),
    "names, label and text, from 1": ("label,text\n4,Chips\n1,War\n", [(3, "Chips"), (0, "War")]),
    "names, label, title and text": ("label,title,text\n4,Chips,New\n", [(3, "Chips New")]),
    "names of pandas": ("0,1,2\n4,Chips,New\n", [(3, "Chips New")]),
    "labels in words": ("Business,Oil,Up\nsci/tech,Chips,New\n", [(2, "Oil Up"), (3, "Chips New")]),
    "words and no numbers": ("text,label\nOil,World\n", [(0, "Oil")]),
    "a title of one known word": (
        '"3","Title","The word"\n"1","War","Peace"\n',
        [(2, "Title The word"), (0, "War Peace")],
    ),
    "two lines in a text": ('"1","War","Peace\ntalks"\n', [(0, "War Peace\ntalks")]),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read(tmp_path, name):
    content, expected = READ[name]
    texts, left_out = read_csv(write(tmp_path, content))
    assert list(zip(texts.labels.tolist(), texts.texts, strict=True)) == expected
    assert left_out == {}


REFUSED = {
    "two columns": (PUBLISHED + '"2","a"\n', 3),
    "a comma without quotes in the description": ("1,a,b\n4,Oil,hit a record, again\n", 2),
    "a comma without quotes in the title": ("4,Oil, gas and coal,Prices\n", 1),
    "a comma without quotes under names": ("Class Index,Title,Description\n1,a,b\n4,Oil,a, b\n", 3),
    "a cell too few under names": ("Class Index,Title,Description\n1,a\n", 2),
    "an index column without names": ("1,3,Oil,Up\n2,1,War,Peace\n", 1),
    "an index column before text and label": ("0,Oil,2\n1,War,3\n", 1),
    "columns in another order": ("Oil,Up,3\n", 1),
    "semicolons": ("3;Oil;Up\n", 1),
    "semicolons and quotes": ('"3";"Oil, gas";"Up"\n', 1),
    "tabs": ("3\tOil, gas\tUp\n", 1),
    "single quotes": ("'3','Oil, gas','Up'\n", 1),
    "label 0 in the published form": ('"0","a","b"\n', 1),
    "label 0 and 4": ("1,a,b\n0,a,b\n4,a,b\n", 2),
    "label 5": (PUBLISHED + '"5","a","b"\n', 3),
    "a float": ('"1","a","b"\n3.0,a,b\n', 2),
    "a negative label": ("-1,a,b\n", 1),
    "another word": (PUBLISHED + "Politics,a,b\n", 3),
    "an Arabic digit": ('"٣","a","b"\n', 1),
    "a number of a thousand digits": (f"{'1' * 5000},a,b\n", 1),
    "names twice": ("Class Index,Title,Description\n3,a,b\nClass Index,Title,Description\n", 3),
    "unknown names": ("label,headline,body\n3,a,b\n", 1),
    "a title and no description": ("label,title\n3,a\n", 1),
    "a column twice": ("label,text,text\n3,a,b\n", 1),
    "a quote that never closes": (PUBLISHED + '3,"Oil,Up again\n' + "1,War,Peace talks went on\n" * 8000, 3),
    "a quote that never closes in a row of two lines": (PUBLISHED + '3,"Oil\nand gas","Up again\n' + "1,a,b\n", 4),
    "a quote that closes too late": (PUBLISHED + '"3","Oil,Up\n' + PUBLISHED, 3),
    "a quote that joins two rows": (PUBLISHED + '3,"Oil,Up\n1,War,Peace"\n', 3),
    "not UTF-8": (b'"1","a","b"\n"1","caf\xe9","b"\n', 2),
    "UTF-16": (PUBLISHED.encode("utf-16"), 1),
    "UTF-16 without a mark": (PUBLISHED.encode("utf-16-le"), 1),
    "UTF-32": (PUBLISHED.encode("utf-32"), 1),
    "gzip": (b"\x1f\x8b\x08\x00\x00", 1),
    "a git-lfs pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 29470338\n", 1),
    "a web page": ("<!DOCTYPE html>\n<html><body>404</body></html>\n", 1),
    "no rows": ("", None),
    "names only": ("Class Index,Title,Description\n", None),
    "rows without text only": ('"1","",""\n', None),
    "numbers that may begin with 0 or 1": ("2,Oil,Up\n1,Goal,Win\n3,Chips,New\n", None),
    "numbers that may begin with 0 or 1, named": ("text,label\nOil,1\n", None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    """In the line where the row, or the quote, begins."""
    content, line = REFUSED[name]
    path = write(tmp_path, content)
    with pytest.raises(BundleError) as caught:
        read_csv(path)
    assert caught.value.code == "data-malformed"
    assert caught.value.key == (f"{path} line {line}" if line else str(path))


def test_what_the_remedies_say_is_right(tmp_path):
    """Numbers that are ambiguous may be names, or have the column's published name, or lie beside the list of names."""
    for content in ("Sports,Goal,Win\n", "Class Index,Title,Description\n2,Goal,Win\n"):
        assert read_csv(write(tmp_path, content))[0].labels.tolist() == [1]
    path = write(tmp_path, "2,Goal,Win\n")
    path.with_name("classes.txt").write_text("World\nSports\nBusiness\nSci/Tech\n")
    assert read_csv(path)[0].labels.tolist() == [1]


def test_rows_without_text_are_counted(tmp_path):
    _, left_out = read_csv(write(tmp_path, PUBLISHED + '"1","",""\n"2"," ","\\"\n,,\n'))
    assert left_out == {"rows without text": 3}


def test_how_many_rows_are_like_the_first(tmp_path):
    with pytest.raises(BundleError, match="in 2 of 3 rows"):
        read_csv(write(tmp_path, "4,a,b,c\n1,a,b\n1,a,b,c\n"))


def test_a_long_text_and_the_limit_of_others(tmp_path):
    limit = csv.field_size_limit()
    texts, _ = read_csv(write(tmp_path, f'"3","T","{"word " * 30000}"\n'))
    assert len(texts.texts[0]) == len("T ") + 5 * 30000 - 1
    with pytest.raises(BundleError):
        read_csv(write(tmp_path, '3,"a'))
    assert csv.field_size_limit() == limit


def test_rows_that_a_quote_may_have_joined(tmp_path):
    """Two rows in one, or a text of two lines of which the second is like a row: nobody can tell, so it is said."""
    rows = read_news(write(tmp_path, PUBLISHED + '3,"Oil,Up\n1,War",Peace\n"1","a","b\n1,500 people"\n'), CLASSES)
    assert [(": 1, the first in line 3;" in warning) for warning in rows.warnings] == [True]


def test_columns_that_are_not_read_are_named(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        read_csv(write(tmp_path, "url,Class Index,Title,Description,date\nu,3,a,b,d\n"))
    assert caplog.messages[0].endswith("columns that are not read: url, date")


def test_one_short_row_is_to_be_made_whole(tmp_path):
    """And a file of two columns needs their names."""
    for content, remedy in (
        ("4,Chips,New\n3,Oil\n4,a,b\n", "make each row whole"),
        ("4,Chips\n3,Oil\n", "such as text,label"),
    ):
        with pytest.raises(BundleError) as caught:
            read_csv(write(tmp_path, content))
        assert remedy in str(caught.value)
