"""Reading one picture, and the files that are pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from stpl_core.codec import Array

SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp", ".pgm")


def is_picture(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def grey_picture(path: Path) -> Array:
    """A picture `(H, W)` as a fraction of full scale; colours become luma (ITU-R 601-2)."""
    from PIL import Image

    content = path.read_bytes()
    if content.startswith(b"\x89PNG") and b"IEND" not in content[-1024:]:
        raise EOFError("its last chunk is missing")  # Pillow would not mind
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith("I"):  # 16 bits
            return np.asarray(image, np.float32) / np.float32(65535)
        return np.asarray(image.convert("L"), np.float32) / np.float32(255)
