"""Folders of plain pictures, such as those of the Typhoon set: grey, or `--variable rgb`.

Grey is the eye's (luma); `--variable mean` is the mean of red, green and blue.

A time in every name is when it was taken; otherwise the last number in the name orders the pictures
and a number left out ends a sequence. Each subfolder is a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.grid import pixel_grid
from stpl_core.reader import Piece, ReadOptions, state_of
from stpl_core.readers import fmi_pgm
from stpl_core.readers.images import SUFFIXES, grey_of, is_picture, rgb_picture
from stpl_core.readers.libraries import decoding, refuse_empty
from stpl_core.readers.names import file_time, last_number, natural_key, visible_files
from stpl_core.readers.stamps import time_in_name
from stpl_core.readers.units import grey_level

__all__ = ["ABOUT", "SUFFIXES", "read", "recognises"]

_RGB = ("red", "green", "blue")
_GREY = "turned to grey; --variable rgb keeps them (in a recipe, data.variable)"
ABOUT = "folders of numbered or dated pictures: grey, or --variable rgb"


def recognises(path: Path) -> bool:
    """Whether a folder holds pictures and nothing else but text; any file with such a name."""
    if path.is_file():
        return is_picture(path)
    files = [file for file in visible_files(path) if file.suffix.lower() not in (".txt", ".md")]
    if not files or not all(is_picture(file) for file in files):
        return False
    return not (files[0].suffix.lower() == ".pgm" and fmi_pgm.recognises(files[0]))


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield one frame for each picture, folder by folder."""
    kind = options.variable or "grey"
    if kind not in ("grey", "mean", "rgb"):
        raise FrameError(
            f"--variable {kind} is none of pictures",
            expected="grey, mean or rgb",
            fix="--variable grey",
        )
    files = [path] if path.is_file() else [f for f in visible_files(path) if is_picture(f)]
    files.sort(key=lambda file: natural_key(str(file)))
    times = _times(files, options)
    for _, group in groupby(files, key=lambda file: file.parent):
        before: int | None = None
        ordered = sorted(group, key=lambda file: (last_number(file.name) or 0, file.name))
        for file in ordered:
            number = last_number(file.name)
            if number is not None and number == before and not times:
                raise FrameError(
                    f"{file} ends in the number {number}, as another picture of its folder does",
                    expected="a time in the name that is understood, or every number once",
                    fix="--time-format PATTERN, or one folder for each sequence",
                )
            goes_on = number is not None and before is not None and number == before + 1
            try:
                piece = _piece(file, kind, begins=not (times or goes_on), time=times.get(file))
            except FrameError as error:
                if options.broken is None:
                    raise
                options.broken(error)
                before = None  # as where a number is left out
                continue
            yield piece
            before = number


def _times(files: list[Path], options: ReadOptions) -> dict[Path, np.datetime64]:
    """The time in every name; empty where names have none, or all the same beside a number.

    Raises:
        FrameError: some names have a time and others have none, or several.
    """
    times = {file: file_time(file, options) for file in files}
    if None in times.values() and not any(map(_is_dated, files)):
        return {}  # numbers, of which some look like a time of the day
    found = {file: time for file, time in times.items() if time is not None}
    same = len(set(found.values())) == 1 and len(files) > 1
    if not found or (same and len({last_number(file.name) for file in files}) == len(files)):
        return {}
    if len(found) < len(files):
        without = next(file for file in files if times[file] is None)
        raise FrameError(
            f"{without} has no time in its name",
            expected=f"one, as in {next(iter(found)).name}",
            fix="--time-format PATTERN, or move it away",
        )
    return found


def _is_dated(file: Path) -> bool:
    """Whether the name alone has a time."""
    return time_in_name(file.name) is not None


def _piece(file: Path, kind: str, *, begins: bool, time: np.datetime64 | None) -> Piece:
    refuse_empty(file)
    notes = {}
    with decoding(file, "pictures"):
        if kind == "rgb":
            frames = rgb_picture(file)[None]  # (1, 3, H, W)
        elif kind == "mean":
            frames = rgb_picture(file).mean(axis=0, dtype=np.float64).astype(np.float32)[None, None]
        else:
            grey, coloured = grey_of(file)
            frames = grey[None, None]  # (1, 1, H, W)
            notes = {"colours": _GREY} if coloured else {}
    return Piece(
        frames=frames,
        state=state_of(frames),
        grid=pixel_grid(*frames.shape[2:]),
        quantity=grey_level(_RGB if kind == "rgb" else ("",)),
        source=str(file),
        time=None if time is None else np.array([time]),
        begins=np.array([begins]),
        notes=notes,
    )
