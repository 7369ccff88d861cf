"""KTH actions as folders of pictures: `<action>/personNN_<action>_dK_*/image_XXXX.*`.

Grey, 25 frames a second; a window must have contiguous numbers. Persons 1 to 16 are for training,
17 to 25 for the test. bibliography.md section 3.5. (The original .avi files: reader `video`.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.grid import pixel_grid
from stpl_core.reader import Piece, ReadOptions, state_of
from stpl_core.readers.images import grey_picture, is_picture
from stpl_core.readers.libraries import decoding, refuse_empty
from stpl_core.readers.names import last_number
from stpl_core.readers.units import grey_level

SUFFIXES: tuple[str, ...] = ()
ABOUT = "KTH action folders: personNN_<action>_dK_*/image_XXXX"
_CLIP = re.compile(r"person(\d\d)_([a-z]+)_(d\d)\w*", re.IGNORECASE)
_LAST_TRAINING_PERSON = 16
_CADENCE_S = 1 / 25


def recognises(path: Path) -> bool:
    """Whether it is a folder with such folders in it, at most two levels down."""
    return path.is_dir() and bool(_clips(path))


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield one piece for each clip; a sequence ends where a number is left out."""
    for clip in _clips(path):
        match = _CLIP.fullmatch(clip.name)
        assert match is not None
        found = list(_pictures(clip, options))
        if not found:
            continue
        files, pictures = zip(*found, strict=True)
        # A piece for each run of pictures of one size, so that the joiner names an odd one.
        numbers = np.array([last_number(file.name) or 0 for file in files])
        begins = np.diff(numbers, prepend=-1) != 1
        begins[0] = True
        edges = [
            0,
            *(n for n in range(1, len(files)) if pictures[n].shape != pictures[n - 1].shape),
            len(files),
        ]
        for low, high in pairwise(edges):
            frames = np.stack(pictures[low:high])[:, None]  # (n, 1, H, W)
            yield Piece(
                frames=frames,
                state=state_of(frames),
                grid=pixel_grid(*frames.shape[2:]),
                quantity=grey_level(),
                source=str(clip) if low == 0 else str(files[low]),
                cadence_s=_CADENCE_S,
                begins=begins[low:high],
                split=0 if int(match[1]) <= _LAST_TRAINING_PERSON else 2,
                notes={"split_rule": "KTH: persons 1 to 16 train, 17 to 25 test"},
            )


def _pictures(clip: Path, options: ReadOptions) -> Iterator[tuple[Path, NDArray[np.float32]]]:
    """Yield each picture of a clip, (H, W), in order; a broken one is as a number left out."""
    files = [file for file in clip.iterdir() if is_picture(file)]
    for file in sorted(files, key=lambda file: (last_number(file.name) or 0, file.name)):
        try:
            refuse_empty(file)
            with decoding(file, "kth"):
                picture = grey_picture(file)
        except FrameError as error:
            if options.broken is None:
                raise
            options.broken(error)
            continue
        yield file, picture


def _clips(path: Path) -> list[Path]:
    folders = [path, *path.glob("*/"), *path.glob("*/*/")]
    return sorted(folder for folder in folders if _CLIP.fullmatch(folder.name) and folder.is_dir())
