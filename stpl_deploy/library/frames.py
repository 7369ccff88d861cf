"""Frames of any format as an xarray dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr


def open_frames(
    path: Path | str, reader: str | None = None, variable: str | None = None
) -> xr.Dataset:
    """Read a file or a folder of frames.

    Args:
        path: a file, or a folder whose files belong together.
        reader: word of a reader, such as `odim`; None finds it.
        variable: which one, where a file holds several.

    Returns:
        `frames` (time, channel, y, x) in physical units, `state` (time, y, x), the times, and the
        grid: see `stpl_core.readers.dataset`.

    Raises:
        FrameError: it cannot be read or used; names the file.
        MissingExtraError: the reader's library is not installed.
        UsageError: no such reader.
    """
    from stpl_core.reader import ReadOptions
    from stpl_core.readers import opening
    from stpl_core.readers.names import check_no_model

    check_no_model(Path(path))
    return opening.open_frames(Path(path), reader, ReadOptions(variable=variable))
