"""One .npy or one picture that says nothing of its numbers: they are in the codec's unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array, FrameCodec
from stpl_core.frames import FRAME_SUFFIXES, FrameShape, as_frame, physical_values, read_array
from stpl_core.readers.images import SUFFIXES, grey_picture, is_transparent, open_picture
from stpl_core.readers.libraries import decoding


def read_stored(path: Path, channels: int) -> NDArray[Any]:
    """One .npy or one picture as stored; a coloured picture is grey where frames have one channel.

    Raises:
        FrameError: it cannot be decoded.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES and suffix not in FRAME_SUFFIXES:
        with decoding(path, "pictures"), open_picture(path, path) as image:
            array = np.asarray(image.convert("RGB"))
    else:
        array = read_array(path)
    coloured = array.ndim == 3 and array.shape[-1] == 3 and suffix in SUFFIXES
    if channels != 1 or not coloured:
        return array
    with decoding(path, "pictures"):
        return grey_picture(path)


def has_holes(path: Path) -> bool:
    """Whether a picture has transparent pixels: not observed, which only its reader can keep.

    Raises:
        FrameError: it cannot be decoded.
    """
    with decoding(path, "pictures"):
        return is_transparent(path)


def read_frame(path: Path, shape: FrameShape, codec: FrameCodec) -> Array:
    """One frame `(C, H, W)` of a .npy or a picture, its numbers in the codec's unit.

    Raises:
        FrameError: see `read_stored`, `as_frame` and `physical_values`.
    """
    array = as_frame(read_stored(path, shape[0]), shape, str(path))
    return physical_values(array, codec, str(path))
