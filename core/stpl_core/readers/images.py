"""Reading one picture, and the files that are pictures."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.safety.budget import check_pixels

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "PPM")


def is_picture(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def open_picture(
    file: Path | BinaryIO, where: object, formats: tuple[str, ...] = _FORMATS
) -> Image.Image:
    """Open a picture of the kinds that we read, whatever its name: others start other programs.

    Raises:
        FrameError: it claims more pixels than a frame may have.
        OSError: it is of another kind, or damaged.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the budget is ours
        image = Image.open(file, formats=formats)
    try:
        check_pixels(where, image.width, image.height, len(image.getbands()))
    except FrameError:
        image.close()
        raise
    return image


def grey_picture(path: Path) -> Array:
    """A picture `(H, W)` as a fraction of full scale; colours become luma (ITU-R 601-2).

    Transparent pixels are not observed: NaN.
    """
    return _picture(path, "L")[0]


def rgb_picture(path: Path) -> Array:
    """A picture `(3, H, W)` as a fraction of full scale; a grey one three times the same.

    Transparent pixels are not observed: NaN.
    """
    return np.moveaxis(_picture(path, "RGB")[0], -1, 0)


def grey_of(path: Path) -> tuple[Array, bool]:
    """As `grey_picture`, and whether it had colours, which are lost in it."""
    return _picture(path, "L")


def _picture(path: Path, mode: str) -> tuple[Array, bool]:
    """A picture `(H, W)` in the mode L or `(H, W, 3)` in RGB, and whether it has colours."""
    content = path.read_bytes()
    if content.startswith(b"\x89PNG") and b"IEND" not in content[-1024:]:
        raise EOFError("its last chunk is missing")  # Pillow would not mind
    from PIL import ImageOps

    with open_picture(io.BytesIO(content), path) as stored:
        image = ImageOps.exif_transpose(stored)  # as every viewer shows it
        if image.mode.startswith("I"):  # 16 bits of grey
            values = np.asarray(image, np.float32) / np.float32(65535)  # (H, W)
            return (values if mode == "L" else np.stack([values] * 3, axis=-1)), False
        values = np.asarray(image.convert(mode), np.float32) / np.float32(255)
        if _may_be_transparent(image):
            seen = np.asarray(image.convert("RGBA"))[..., 3] > 0  # (H, W)
            seen = seen if mode == "L" else seen[..., None]
            values = np.where(seen, values, np.float32(np.nan))
        return values, _has_colours(image)


def _has_colours(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "La"):
        return False
    bands = np.asarray(image.convert("RGB"))  # (H, W, 3)
    return bool((bands != bands[..., :1]).any())


def is_transparent(path: Path) -> bool:
    """Whether some of a picture's pixels are not there at all.

    Raises:
        FrameError: it claims more pixels than a frame may have.
        OSError: it is no picture, or damaged.
    """
    with open_picture(path, path) as image:
        return _may_be_transparent(image) and bool(
            (np.asarray(image.convert("RGBA"))[..., 3] == 0).any()
        )


def _may_be_transparent(image: Image.Image) -> bool:
    return "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa")
