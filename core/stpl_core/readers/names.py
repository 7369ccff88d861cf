"""Times and numbers in file names, and the files of a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stpl_core.errors import UsageError

_STAMP = re.compile(r"(?<!\d)((?:19|20)\d{2})(\d{2})(\d{2})[-_T]?(\d{2})(\d{2})(\d{2})?(?!\d)")
UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")
"""Ends of names that are still being written: these are awaited, not passed over."""


def time_in_name(name: str) -> np.datetime64 | None:
    """The last time in a name: 14 or 12 digits, the date set off or not (`20190610-000200`).

    Returns:
        UTC to the nanosecond; None where there is none.
    """
    for match in reversed(list(_STAMP.finditer(name))):
        year, month, day, hour, minute, second = (part or "00" for part in match.groups())
        try:
            stamp = np.datetime64(f"{year}-{month}-{day}T{hour}:{minute}:{second}", "ns")
        except ValueError:
            continue  # digits that are no date
        return stamp
    return None


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts `frame2` before `frame10`."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p.lower()) for p in parts)


def last_number(name: str) -> int | None:
    """The last run of digits in the name without its suffix: a picture's number."""
    found = re.findall(r"\d+", name.partition(".")[0])
    return int(found[-1]) if found else None


def in_time_order(paths: Sequence[Path]) -> list[Path]:
    """Sort by the times in the names where all have one, else by name with numbers as numbers."""
    stamps = {path: time_in_name(path.name) for path in paths}
    if all(stamp is not None for stamp in stamps.values()):
        return sorted(paths, key=lambda path: (str(stamps[path]), path.name))
    return sorted(paths, key=lambda path: natural_key(str(path)))


def check_no_model(path: Path) -> None:
    """Refuse a model's folder where frames are asked for: its arrays are not frames of a source.

    Raises:
        UsageError: `path` is a bundle or a run.
    """
    marks = {
        "a bundle": ("manifest.json", "reference.npz"),
        "a run": ("recipe.toml", "weights.safetensors"),
    }
    for what, names in marks.items():
        if all((path / name).is_file() for name in names):
            raise UsageError(
                f"{path} is {what}",
                expected="frames: a file, or a folder of them",
                fix=f"stpl-deploy inspect {path}, or the path of your frames",
            )


def visible_files(folder: Path) -> list[Path]:
    """All files under `folder`, without hidden and unfinished ones."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.name.lower().endswith(UNFINISHED)
    ]
