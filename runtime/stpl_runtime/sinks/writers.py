"""A nowcast as the bytes of a file, by the file's suffix."""

from __future__ import annotations

import io

import numpy as np

from stpl_deploy.errors import UsageError
from stpl_runtime.nowcast import Nowcast

SUFFIXES = (".npz", ".npy", ".png", ".gif")
"""What `bytes_for` makes."""


def bytes_for(suffix: str, nowcast: Nowcast) -> bytes:
    """The content of a file of this kind.

    Args:
        suffix: one of `SUFFIXES`. `.npy` holds the predicted frames alone.
        nowcast: one nowcast; for .npz and .npy also a batch of them, with one axis more.

    Raises:
        UsageError: a picture of a batch.
    """
    if suffix == ".npz":
        from stpl_runtime.sinks.npz import npz_bytes

        return npz_bytes(nowcast)
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, nowcast.frames)
        return buffer.getvalue()
    if nowcast.frames.ndim != 4:
        raise UsageError(
            f"{len(nowcast.frames)} sequences for one {suffix} picture",
            expected="one sequence (T, C, H, W)",
            fix="--out FILE.npz for many",
        )
    if suffix == ".png":
        from stpl_runtime.sinks.png import png_bytes

        return png_bytes(nowcast)
    from stpl_runtime.sinks.gif import gif_bytes

    return gif_bytes(nowcast)
