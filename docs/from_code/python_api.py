"""The reference of the Python API: what `import stpl_deploy as stpl` has."""

from __future__ import annotations

_KINDS = (
    ("Models", ("load", "Model", "LiveNowcasts", "Nowcast")),
    ("Frames", ("open_frames",)),
    ("From data to a bundle", ("train", "Run", "export", "Bundle")),
    ("Scores and archives", ("evaluate", "backfill")),
)
_ELSEWHERE = ("StplError", "errors", "readers")
"""On pages of their own."""

_INTRODUCTION = """# Python

    import stpl_deploy as stpl

What a verb does, a function does, with the same options by name. Errors:
[`stpl.errors`](errors.md). Formats of frames: [`stpl.readers`](../data.md#readers). Each name is
imported when it is first used.
"""


def page() -> str:
    """Every public name, filled in by mkdocstrings."""
    import stpl_deploy

    listed = {name for _, names in _KINDS for name in names} | set(_ELSEWHERE)
    if listed != set(stpl_deploy.__all__):
        raise ValueError(f"not on a page: {sorted(listed ^ set(stpl_deploy.__all__))}")
    parts = [_INTRODUCTION]
    for title, names in _KINDS:
        parts.append(f"## {title}\n")
        parts += [f"::: {stpl_deploy._FROM[name].replace(':', '.')}\n" for name in names]
    return "\n".join(parts)
