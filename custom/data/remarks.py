# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a site tells of its data beside their counts: what was left out, what looks wrong, and how they were read.

All three are shown in the report and never compared between sites, which may differ in them for good reasons. Data say
so by methods that are optional, so that a data class of one's own needs none of them:

- `left_out() -> dict[str, int]`: how many items the reader saw and left out, by reason, such as
  `{"files with .dcm in train/NORMAL": 24}`;
- `data_warnings() -> list[str]`: what may make the result wrong, a sentence each;
- `data_notes() -> list[str]`: how the data were read, such as `16-bit images, scaled from 12 bits to 8`.

A text is a few words for people. It holds no file name: those may name patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from custom.printable import printable

MOST_REASONS, MOST_SENTENCES = 40, 20
LONGEST = 300  # characters of a text
OTHERS = "for other reasons"


@dataclass(frozen=True)
class Remarks:
    """Of one site; see the module."""

    left_out: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def remarks_of(data: Any, warnings: Sequence[str] = ()) -> Remarks:
    """What the data of a site say, in a form that `custom.checks.agreement.check_remarks` accepts.

    Reasons that nothing was left out for are dropped; of very many, the rarest become one.

    Args:
        data: of the site.
        warnings: more of them, not from the data.
    """
    told = {name: getattr(data, name)() if hasattr(data, name) else () for name in _METHODS}
    counts: dict[str, int] = {}
    for reason, count in sorted(dict(told["left_out"]).items(), key=lambda pair: (-pair[1], pair[0])):
        if count:
            place = _line(reason) if len(counts) < MOST_REASONS - 1 else OTHERS
            counts[place] = counts.get(place, 0) + int(count)
    texts = ([*told["data_warnings"], *warnings], told["data_notes"])
    return Remarks(counts, *([_line(text) for text in lines][:MOST_SENTENCES] for lines in texts))


_METHODS = ("left_out", "data_warnings", "data_notes")


def left_out_line(counts: Mapping[str, int]) -> str:
    """`files with .dcm in train/NORMAL: 24; images that cannot be read in test/NORMAL: 1`."""
    return "; ".join(f"{reason}: {count:,}" for reason, count in counts.items())


def _line(text: object) -> str:
    return printable(text, LONGEST)
