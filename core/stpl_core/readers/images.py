"""Reading one picture, and the files that are pictures."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.readers.libraries import reads_with
from stpl_core.safety.budget import check_pixels

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "PPM")
_WIDE = (b"\x10\x02", b"\x10\x04", b"\x10\x06")
"""Bits and kind of colour in the header of a PNG: 16 bits of colours, or with opacity."""
_LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey (ITU-R 601-2)."""


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
        _refuse_animated(stored, path)
        if stored.format == "PNG" and content[24:26] in _WIDE:
            return _wide_picture(content, stored, mode)
        image = ImageOps.exif_transpose(stored)  # as every viewer shows it
        if image.mode.startswith("I"):  # 16 bits of grey
            numbers = np.asarray(image)  # (H, W)
            values = numbers.astype(np.float32) / np.float32(65535)
            if isinstance(clear := stored.info.get("transparency"), int):
                values[numbers == clear] = np.nan
            return (values if mode == "L" else np.stack([values] * 3, axis=-1)), False
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # Pillow would warn of another way
        values = np.asarray(image.convert(mode), np.float32) / np.float32(255)
        if _may_be_transparent(image):
            seen = np.asarray(image.convert("RGBA"))[..., 3] > 0  # (H, W)
            seen = seen if mode == "L" else seen[..., None]
            values = np.where(seen, values, np.float32(np.nan))
        return values, _has_colours(image)


def _refuse_animated(stored: Image.Image, path: Path) -> None:
    """Raise for a PNG of several pictures, of which one would be read."""
    count = getattr(stored, "n_frames", 1)
    if stored.format == "PNG" and count > 1:
        raise FrameError(
            f"{path} is an animation of {count} pictures",
            expected="one picture, or a film",
            fix=f"ffmpeg -i {path.name} -c:v ffv1 film.mkv",
        )


def _wide_picture(content: bytes, stored: Image.Image, mode: str) -> tuple[Array, bool]:
    """A PNG of 16 bits in each of several bands, of which Pillow would keep 8; by GDAL."""
    with reads_with("geotiff"):
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.MemoryFile(content) as held, held.open(driver="PNG") as file:
            numbers = file.read()  # (bands, H, W)
            seen = file.dataset_mask() > 0  # (H, W)
    colours = numbers[:3] if len(numbers) > 2 else numbers[:1]
    # The turn that the EXIF asks for, of the pixels' places.
    places = Image.fromarray(np.arange(seen.size, dtype=np.int32).reshape(seen.shape))
    places.info["exif"] = stored.getexif().tobytes()
    turned = np.asarray(ImageOps.exif_transpose(places))
    values = colours.reshape(len(colours), -1)[:, turned].astype(np.float64) / 65535
    values[:, ~seen.ravel()[turned]] = np.nan
    coloured = bool((colours != colours[:1]).any())
    if mode == "L":
        grey = values[0] if not coloured else np.tensordot(_LUMA, values, 1)
        return grey.astype(np.float32), coloured
    bands = values if len(values) == 3 else np.repeat(values, 3, axis=0)
    return np.moveaxis(bands, 0, -1).astype(np.float32), coloured


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
