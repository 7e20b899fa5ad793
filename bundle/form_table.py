# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`python -m bundle settings`: the forms of jobs as tables to read, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from bundle.form import Field, JobForm

WIDTH = 100
HEADINGS = ("key", "default", "range", "help")
WIDEST = (26, 18, 20)  # of all columns but the last, which has the rest


def to_text(form: JobForm) -> str:
    """Title, description and the table."""
    heading = form.title if form.title == form.name else f"{form.name}: {form.title}"
    if not form.fields:
        table = f"no {form.name}/form.json: any argument of its JSON can be set all the same\n"
    else:
        table = _table([HEADINGS, *(_row(field) for field in form.fields)])
    return f"{heading}\n{textwrap.fill(form.description, WIDTH)}\n\n{table}"


def to_json(forms: Sequence[JobForm]) -> str:
    """A list of `{job, title, description, fields}`."""
    return json.dumps([_form(form) for form in forms], indent=2) + "\n"


def _form(form: JobForm) -> dict[str, Any]:
    fields = [asdict(field) for field in form.fields]
    return {"job": form.name, "title": form.title, "description": form.description, "fields": fields}


def _row(field: Field) -> tuple[str, ...]:
    default = field.default if isinstance(field.default, str) else json.dumps(field.default)
    return (field.key, "none" if field.default is None else default, field.range, field.help)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [min(widest, max(map(len, cells))) for widest, cells in zip(WIDEST, zip(*rows, strict=True), strict=False)]
    widths.append(WIDTH - sum(widths) - 2 * len(widths))
    lines: list[str] = []
    for row in rows:
        columns = [textwrap.wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*columns, fillvalue=""):
            cells = (f"{part:<{width}}" for part, width in zip(parts, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"
