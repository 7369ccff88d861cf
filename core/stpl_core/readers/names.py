"""Times and numbers in file names, and the files of a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stpl_core.errors import FrameError, UsageError
from stpl_core.reader import ReadOptions
from stpl_core.readers.folder_stamps import time_of_path
from stpl_core.readers.stamps import as_datetime64
from stpl_core.readers.time_format import time_format

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")
"""Ends of names that are still being written: these are awaited, not passed over."""


def file_time(path: Path, options: ReadOptions) -> np.datetime64 | None:
    """The time of a file by its name and folders, or by the user's pattern; None: there is none.

    Raises:
        FrameError: the pattern does not fit the name, or without one the name has several times.
    """
    if options.time_format is not None:
        return as_datetime64(time_format(options.time_format).time(path))
    return time_of_path(path)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts `frame2` before `frame10`."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p.lower()) for p in parts)


def last_number(name: str) -> int | None:
    """The last run of digits in the name without its suffix: a picture's number."""
    found = re.findall(r"\d+", name.partition(".")[0])
    return int(found[-1]) if found else None


def in_time_order(paths: Sequence[Path], options: ReadOptions) -> list[Path]:
    """Sort by the times in the names where all have one, else by name with numbers as numbers."""
    stamps = times_of(paths, options)
    if stamps is not None:
        return sorted(paths, key=lambda path: (str(stamps[path]), path.name))
    return sorted(paths, key=lambda path: natural_key(str(path)))


def times_of(paths: Sequence[Path], options: ReadOptions) -> dict[Path, np.datetime64] | None:
    """The times in the names; None where one has none, or several that it may mean."""
    found = {}
    for path in paths:
        try:
            stamp = file_time(path, options)
        except FrameError:
            return None
        if stamp is None:
            return None
        found[path] = stamp
    return found


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
    """All files under `folder`, without hidden and unfinished ones.

    Linked folders are followed, each place once: days of an archive often are links.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        true_place = os.path.realpath(place)
        if true_place in seen:
            folders.clear()
            continue
        seen.add(true_place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            path
            for name in names
            if not name.startswith(".") and not name.lower().endswith(UNFINISHED)
            if (path := Path(place, name)).is_file()
        ]
    return found


def is_utf8(path: Path) -> bool:
    """Whether a path can be given to libraries that want text: on Linux it is any bytes."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """The same file or folder, by a name that every library takes: a link, where its own is none.

    Bytes that are no UTF-8 become `_`; digits and the suffix, which mean something, stay.
    """
    if is_utf8(path):
        yield path
        return
    name = path.name.encode("utf-8", "replace").decode().replace("?", "_")
    with TemporaryDirectory(prefix="stpl-name-", ignore_cleanup_errors=True) as folder:
        link = Path(folder) / name
        link.symlink_to(path.absolute())
        yield link
