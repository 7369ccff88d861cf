"""Tables and curves of the report: HTML, and SVG in the page's ink."""

from __future__ import annotations

import io
import math
from html import escape
from typing import Any

from stpl_runtime.evaluation.words import number

COLOURS = (
    "#d9622b", "#7a8794", "#2f8fbf", "#4a9a5b", "#a06cc0", "#b08a2e",
    "#c9537e", "#4aa8a0", "#8a6f5a", "#6f7fd0", "#8fa03a",
)  # fmt: skip
"""Of the model and what stands beside it; readable on white and on black."""
INK = "#010203"
"""Stands for the page's ink until the SVG is written."""


def score_row(head: str, values: list[float], sign: int) -> str:
    """One score of each forecaster, the best one marked; `sign` as `words.better` gives it."""
    known = [sign * value for value in values if not math.isnan(value)]
    best = max(known) if sign and known else math.nan
    marks = [' class="best"' if sign * value == best else "" for value in values]
    cells = [f"<td{mark}>{number(value)}</td>" for mark, value in zip(marks, values, strict=True)]
    return f"<tr><td>{escape(head)}</td>{''.join(cells)}</tr>"


def table(heads: list[str], rows: list[str], kind: str = "") -> str:
    """A table of HTML rows, that scrolls by itself where it is too wide."""
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    inside = f"<tr>{top}</tr>{''.join(rows)}"
    return f'<div class="wide"><table class="{kind}">{inside}</table></div>'


def plain_row(head: str, cells: list[str]) -> str:
    """A row of a table."""
    inside = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr><td>{escape(head)}</td>{inside}</tr>"


def folded(summary: str, inside: str, *, is_open: bool = False) -> str:
    """What can be folded away."""
    word = "details open" if is_open else "details"
    return f"<{word}><summary>{escape(summary)}</summary>{inside}</details>"


def lead_axis(cadence_s: float | None) -> tuple[float, str]:
    """What to multiply the number of a lead time by, and the label of the axis."""
    if cadence_s is None:
        return 1.0, "lead time, frames"
    if cadence_s >= 1800:
        return cadence_s / 3600, "lead time, hours"
    if cadence_s >= 30:
        return cadence_s / 60, "lead time, minutes"
    return cadence_s, "lead time, seconds"


def svg(name: str, text: str, draw: Any) -> str:
    """One drawing as inline SVG, in the page's ink; `name` keeps its ids apart from the others'."""
    import matplotlib
    import matplotlib.figure

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif", "font.size": 9,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color",
                         "ytick.color"), INK),
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = matplotlib.figure.Figure(figsize=(4.4, 2.9), layout="tight")
        axes = figure.subplots()
        draw(axes)
        axes.set_title(text, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    whole = file.getvalue()
    inside = whole[whole.index("<svg") :].replace(INK, "currentColor")
    return f"<figure>{inside}</figure>"
