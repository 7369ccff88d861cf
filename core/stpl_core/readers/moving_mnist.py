"""Moving MNIST as files: the test set's .npy, and the authors' .npz with `clips`.

`mnist_test_seq.npy` is uint8 (20, N, 64, 64), time first. The .npz has `clips` (2, N, 2): for
input and output of each sequence the first frame and the count, in `input_raw_data` (frames, 1,
64, 64) in [0, 1]. bibliography.md section 3.5. (The generator is `data.kind = "moving_mnist"` of a
recipe.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.grid import pixel_grid
from stpl_core.reader import Piece, ReadOptions, state_of
from stpl_core.readers.npz import open_npz
from stpl_core.readers.units import grey_level

SUFFIXES = (".npy", ".npz")
ABOUT = "Moving MNIST: mnist_test_seq.npy, .npz with clips"
_LENGTH = 20
_BLOCK = 128
"""Sequences in a piece."""


def recognises(path: Path) -> bool:
    """Whether it has the shape of the test set, or an array `clips`."""
    if not path.is_file():
        return False
    if path.name.lower().endswith(".npz"):
        with open_npz(path) as archive:
            return {"clips", "input_raw_data"} <= set(archive.files)
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # of objects, or no array: the reader of arrays has the words for it
        return False
    return bool(stored.dtype == np.uint8 and stored.ndim == 4 and stored.shape[0] == _LENGTH)


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield whole sequences in blocks."""
    if path.name.lower().endswith(".npz"):
        yield from _read_clips(path)
        return
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    if stored.ndim != 4 or stored.dtype != np.uint8:
        raise FrameError(
            f"{path} has the shape {stored.shape} and dtype {stored.dtype}",
            expected="uint8 (20, N, H, W)",
            fix="--reader arrays",
        )
    length, count = stored.shape[:2]
    for start in range(0, count, _BLOCK):
        block = np.moveaxis(stored[:, start : start + _BLOCK], 0, 1)  # (n, 20, H, W)
        begins = np.tile(np.arange(length) == 0, len(block))
        yield _piece(block.reshape(-1, 1, *stored.shape[2:]), begins, path)


def _read_clips(path: Path) -> Iterator[Piece]:
    with open_npz(path) as archive:
        clips, stored = archive["clips"], archive["input_raw_data"]  # (2, N, 2), (F, 1, H, W)
    if clips.ndim != 3 or clips.shape[0] != 2 or clips.shape[2] != 2 or stored.ndim != 4:
        raise FrameError(
            f"{path} has clips {clips.shape} and input_raw_data {stored.shape}",
            expected="(2, N, 2) and (frames, channels, H, W)",
            fix="check the file",
        )
    ends = clips[..., 0] + clips[..., 1]
    if len(stored) < int(ends.max()) or int(clips.min()) < 0:
        raise FrameError(
            f"{path} has clips up to frame {int(ends.max())}",
            expected=f"at most {len(stored)}, the frames it holds",
            fix="copy it again",
        )
    for block in range(0, clips.shape[1], _BLOCK):
        rows: list[int] = []
        begins: list[bool] = []
        for n in range(block, min(block + _BLOCK, clips.shape[1])):
            for part in range(2):
                start, length = (int(value) for value in clips[part, n])
                begins += [part == 0 and k == 0 for k in range(length)]
                rows += range(start, start + length)
        yield _piece(stored[rows], np.array(begins), path)


def _piece(stored: NDArray[Any], begins: NDArray[np.bool_], path: Path) -> Piece:
    scale = np.float32(255 if stored.dtype == np.uint8 else 1)
    frames = stored.astype(np.float32) / scale  # (n, C, H, W)
    return Piece(
        frames=frames,
        state=state_of(frames),
        grid=pixel_grid(*frames.shape[2:]),
        quantity=grey_level(),
        source=str(path),
        begins=begins,
    )
