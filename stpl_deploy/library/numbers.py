"""Numbers as options take them: with commas between, and sizes."""

from __future__ import annotations

import math
from typing import Any

from stpl_core.errors import UsageError


def finite_numbers(option: str, text: str, example: str, *, blanks: bool = False) -> list[float]:
    """The numbers of `text` in their order.

    Args:
        option: its name, for the message.
        text: what was typed.
        example: what would be right.
        blanks: whether nothing between two commas is passed over.

    Raises:
        UsageError: a word is no number, NaN or infinite.
    """
    words = [word for word in text.split(",") if word.strip() or not blanks]
    try:
        found = [float(word) for word in words]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise UsageError(
            f"{option} {text}", expected="numbers with commas between", fix=f"{option} {example}"
        )
    return found


def sized(options: dict[str, Any]) -> dict[str, Any]:
    """The same options, with a `grid` of (H, W) in the words of the command line."""
    grid = options.get("grid")
    if isinstance(grid, (tuple, list)) and len(grid) == 2:
        return {**options, "grid": f"{grid[0]}x{grid[1]}"}
    return options
