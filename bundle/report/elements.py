# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Pieces of the page. Every name and number is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """A table; each row comes with its CSS class, and a cell that ends with `failed` is red."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = []
    for row_class, cells in rows:
        tds = "".join(
            f'<td class="failed">{escape(cell)}</td>' if cell.endswith(" failed") else f"<td>{escape(cell)}</td>"
            for cell in cells
        )
        lines.append(f'<tr class="{row_class}">{tds}</tr>' if row_class else f"<tr>{tds}</tr>")
    top = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f'<div class="card scroll"><table class="{kind}">{top}<tbody>' + "\n".join(lines) + "</tbody></table></div>"


def cards(charts: Sequence[tuple[str, str]]) -> str:
    """Charts side by side, as title and SVG."""
    drawn = "\n".join(f'<div class="card"><h3>{escape(title)}</h3>\n{svg}</div>' for title, svg in charts)
    return f'<div class="charts">\n{drawn}\n</div>'


def paragraph(text: str) -> str:
    """A paragraph; empty if `text` is."""
    return f"<p>{escape(text)}</p>" if text else ""
