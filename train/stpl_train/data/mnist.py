"""MNIST's digits: the idx file format, and a download into the user's cache with a checksum."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpl_deploy.errors import ChecksumError, EnvironmentFault, FrameError
from stpl_deploy.files import atomic_file

Bytes = NDArray[np.uint8]

TRAIN_IMAGES = "train-images-idx3-ubyte"
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
MD5 = {
    TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
}
"""Of the uncompressed files, since mirrors compress them anew."""

_MAGIC = 0x00000803  # unsigned bytes, three axes
_TIMEOUT_S = 30


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


def cache_directory() -> Path:
    """Where downloads are kept: the platform's cache directory of this user."""
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "stpl-deploy" / "mnist"


def download(
    name: str = TRAIN_IMAGES, cache: Path | None = None, mirrors: Sequence[str] | None = None
) -> Path:
    """Return a cached idx file; fetch and check it first where it is not there yet.

    Args:
        name: a key of `MD5`.
        cache: where to keep it; None is `cache_directory()`.
        mirrors: URLs of folders that hold `<name>.gz`, tried in turn; None is `MIRRORS`.

    Raises:
        EnvironmentFault: no mirror answers.
        ChecksumError: a mirror answers with other bytes.
    """
    kept = (cache or cache_directory()) / name
    if kept.is_file() and _md5(kept.read_bytes()) == MD5[name]:
        return kept
    data = _fetch(f"{name}.gz", MIRRORS if mirrors is None else mirrors)
    try:
        plain = gzip.decompress(data)
    except (OSError, EOFError):
        plain = data  # not gzip; the checksum tells
    if _md5(plain) != MD5[name]:
        raise ChecksumError(
            f"the downloaded {name}.gz has other bytes (md5 {_md5(plain)[:8]}…)",
            expected=f"{MD5[name][:8]}…",
            fix="try again, or --set data.images=scikit-learn",
        )
    with atomic_file(kept) as file:
        file.write(plain)
    return kept


def _fetch(name: str, mirrors: Sequence[str]) -> bytes:
    reason = "no mirror"
    for mirror in mirrors:
        try:
            with urllib.request.urlopen(f"{mirror}/{name}", timeout=_TIMEOUT_S) as answer:  # noqa: S310 (URLs of this file)
                body: bytes = answer.read()
                return body
        except (OSError, urllib.error.URLError) as error:  # noqa: PERF203 (few mirrors)
            reason = str(getattr(error, "reason", error))
    raise EnvironmentFault(
        f"MNIST cannot be downloaded: {reason}",
        expected="a connection, or the files on this machine",
        fix="--set data.images=scikit-learn, or --set data.images=PATH/OF/MNIST",
    )


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
