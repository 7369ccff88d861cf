"""What an .npz may hold beside its sequences: which pixels were observed, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.readers.npz import open_npz


def read_beside(
    path: Path, frames: Array
) -> tuple[NDArray[np.bool_] | None, NDArray[np.datetime64] | None]:
    """`observed` `(N, S, H, W)` and `time` `(N, S)` of an .npz, where it has them.

    Args:
        path: of the file; only an .npz has any.
        frames: `(N, S, C, H, W)`, the sequences in it.

    Raises:
        FrameError: they do not fit the sequences.
    """
    if path.suffix.lower() != ".npz":
        return None, None
    with open_npz(path) as archive:
        found = {name: archive[name] for name in ("observed", "time") if name in archive.files}
    sizes = {"observed": (*frames.shape[:2], *frames.shape[3:]), "time": frames.shape[:2]}
    for name, values in found.items():
        if values.shape == sizes[name][1:] and len(frames) == 1:
            found[name] = values[None]  # one sequence, as (T, C, H, W) is
        elif values.shape != sizes[name]:
            raise FrameError(
                f"{path}: `{name}` has the shape {values.shape}",
                expected=f"{sizes[name]}, for frames of {frames.shape}",
                fix="save both of the same sequences",
            )
    times = found.get("time")
    if times is not None and times.dtype.kind != "M":
        raise FrameError(
            f"{path}: `time` has dtype {times.dtype}",
            expected="datetime64",
            fix="save it as datetime64[s]",
        )
    observed = found.get("observed")
    return (
        None if observed is None else observed.astype(np.bool_),
        None if times is None else times.astype("datetime64[ns]"),
    )
