"""Trained weights that come with the package: `pretrained:NAME` where a run directory is asked for.

Each is a run: recipe, weights in half precision, a few held-out sequences to verify with, and
ATTRIBUTION.md, which states its training data and how it was judged.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from stpl_core.errors import RunError

PREFIX = "pretrained:"
_LIKE = 0.8
"""How much a path is like a name that it was meant for, 0 to 1."""


def pretrained_names() -> list[str]:
    """Those that there are."""
    folder = Path(__file__).parent
    return sorted(path.parent.name for path in folder.glob("*/recipe.toml"))


def meant_by(path: Path) -> str | None:
    """`pretrained:NAME` where a path that is not there is about that name; else None."""
    near = difflib.get_close_matches(str(path), pretrained_names(), n=1, cutoff=_LIKE)
    return f"{PREFIX}{near[0]}" if near else None


def run_path(path: Path) -> Path:
    """The directory behind `pretrained:NAME`; any other path as it is.

    Raises:
        RunError: no such name.
    """
    if not str(path).startswith(PREFIX):
        return path
    name = str(path).removeprefix(PREFIX)
    names = pretrained_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise RunError(
            f"no pretrained model {name}",
            expected=f"one of {', '.join(names) or 'none in this package'}",
            fix=f"{PREFIX}{near[0]}" if near else "stpl-deploy train --list",
        )
    return Path(__file__).parent / name
