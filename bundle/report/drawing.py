# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The look of all charts, and how matplotlib draws them as inline SVG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any

GREEN, GREY, BLUE = "#4d7c0f", "#94a3b8", "#0369a1"
SITE_COLOURS = ("#0ea5e9", "#f97316", "#a855f7", "#14b8a6", "#eab308", "#ec4899")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bundle",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.edgecolor": "#cbd5e1",
    "axes.labelcolor": "#475569",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
    "xtick.color": "#64748b",
    "ytick.color": "#64748b",
    "legend.frameon": False,
    "text.parse_math": False,  # names are no formulas
}
Draw = Callable[[Any, Any], None]


def svg(draw: Draw, label: str, *, grid: bool = True, size: tuple[float, float] = (5.2, 3.2)) -> str:
    """An SVG element without a width of its own; `label` is escaped, `size` is in inches."""
    import matplotlib as mpl  # slow to import, and only the page needs it
    from matplotlib.figure import Figure

    # Of letters that its own font lacks, and of names too long for the layout: the browser has the font, and scrolls.
    with mpl.rc_context(STYLE | {"axes.grid": grid}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # The page sets the width; the drawing keeps its shape.
    text = re.sub(r' height="[^"]*pt"', "", text, count=1)
    opening = f'<svg role="img" aria-label="{escape(label)}" '
    return re.sub(r'<svg ([^>]*?)width="[^"]*"', lambda match: opening + match[1], text, count=1)
