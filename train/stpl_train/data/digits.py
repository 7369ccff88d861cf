"""Pictures of digits for the moving-digits generator, split so that validation sees new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpl_core.errors import MissingExtraError
from stpl_train.data import mnist

Bytes = NDArray[np.uint8]
Part = Literal["training", "validation"]

VALIDATION_SHARE = 1 / 6
"""The last sixth: 10,000 of MNIST's 60,000 training images, 299 of scikit-learn's 1,797."""


def digit_images(images: str, size: int, part: Part) -> Bytes:
    """Load digits as `(N, size, size)` unsigned bytes.

    Args:
        images: `scikit-learn`, `mnist` (downloaded once), or a path to MNIST's idx files.
        size: side in pixels; other sizes are scaled smoothly.
        part: training and validation never share a picture. MNIST's test images are never read.

    Raises:
        FrameError: the path holds no such images.
        EnvironmentFault: MNIST cannot be downloaded, or scikit-learn is missing.
    """
    if images == "scikit-learn":
        every = _scikit_learn()
    elif images == "mnist":
        every = mnist.read_idx_images(mnist.download())
    else:
        every = mnist.read_idx_images(mnist.find_images(Path(images).expanduser()))
    split = len(every) - max(1, round(len(every) * VALIDATION_SHARE))
    return _resized(every[:split] if part == "training" else every[split:], size)


def _scikit_learn() -> Bytes:
    """1,797 digits of 8x8 with 17 grey levels; a margin of one pixel lets the edges fade."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    grey = load_digits().images * (255 / 16)  # (N, 8, 8)
    return np.pad(grey.round().astype(np.uint8), ((0, 0), (1, 1), (1, 1)))  # (N, 10, 10)


def _resized(images: Bytes, size: int) -> Bytes:
    if images.shape[1:] == (size, size):
        return images
    return np.stack(
        [
            np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
            for image in images
        ]
    )  # (N, size, size)
