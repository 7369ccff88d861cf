"""MNIST's digits: the idx file format, and where the files come from where they are not at hand."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import ChecksumError, EnvironmentFault, FrameError, SinkError
from stpl_core.fetch.checked import fetch_file
from stpl_core.fetch.sets import public_set
from stpl_core.fetch.transfer import Wait
from stpl_core.files import cache_directory

Bytes = NDArray[np.uint8]

TRAIN_IMAGES = "train-images-idx3-ubyte"

_MAGIC = 0x00000803  # unsigned bytes, three axes


def read_idx_images(path: Path) -> Bytes:
    """Read `(N, H, W)` unsigned bytes from an idx3 file, gzipped or not.

    Raises:
        FrameError: missing, truncated, or not such a file.
    """
    if not path.is_file():
        raise FrameError(
            f"no file {path}", expected=f"{TRAIN_IMAGES}[.gz]", fix="--set data.images=scikit-learn"
        )
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError) as error:
        raise FrameError(
            f"{path} cannot be unpacked: {error}", expected="a whole .gz file", fix="copy it again"
        ) from error
    return _images_from_idx(data, path)


def _images_from_idx(data: bytes, path: Path) -> Bytes:
    header = np.frombuffer(data[:16], dtype=">u4") if len(data) >= 16 else np.zeros(4, ">u4")
    magic, count, height, width = (int(value) for value in header)
    if magic != _MAGIC:
        raise FrameError(
            f"{path} starts with {data[:4].hex() or 'nothing'}",
            expected=f"an idx file of images, which starts with {_MAGIC:08x}",
            fix=f"point data.images at {TRAIN_IMAGES}[.gz]",
        )
    if count < 1 or len(data) != 16 + count * height * width:
        raise FrameError(
            f"{path} holds {len(data)} bytes",
            expected=f"{16 + count * height * width} for {count} images of {height}x{width}",
            fix="copy it again",
        )
    return np.frombuffer(data, dtype=np.uint8, offset=16).reshape(count, height, width)


def find_images(path: Path) -> Path:
    """The file of training images in a directory, or the file itself.

    Raises:
        FrameError: nothing there.
    """
    if path.is_file():
        return path
    for name in (TRAIN_IMAGES, f"{TRAIN_IMAGES}.gz"):
        if (path / name).is_file():
            return path / name
    what = f"no {TRAIN_IMAGES}" if path.is_dir() else "nothing"
    raise FrameError(
        f"data.images = {str(path)!r}: {what} there",
        expected=f"scikit-learn, mnist, or a path with {TRAIN_IMAGES}[.gz]",
        fix="--set data.images=scikit-learn",
    )


def download(folder: Path | None = None, wait: Wait = time.sleep) -> Path:
    """Return the file of training images; fetch and check it first where it is not there yet.

    Args:
        folder: where to keep it; None is this user's cache.
        wait: sleeps between attempts.

    Raises:
        EnvironmentFault: no mirror answers.
        ChecksumError: the mirrors answer with other bytes.
    """
    kept = folder or cache_directory("mnist")
    known = public_set("mnist")
    (file,) = (file for file in known.files if file.name == TRAIN_IMAGES)
    try:
        fetch_file(file, kept, known.mirrors, wait=wait)
    except (SinkError, ChecksumError):
        raise
    except EnvironmentFault as error:
        raise EnvironmentFault(
            f"MNIST cannot be downloaded: {error.found}",
            expected="a connection, or the files on this machine",
            fix="--set data.images=scikit-learn, or --set data.images=PATH/OF/MNIST",
        ) from error
    return kept / TRAIN_IMAGES
