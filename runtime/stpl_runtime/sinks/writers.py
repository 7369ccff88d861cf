"""A nowcast as a file (Zarr: a directory), by the suffix."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from stpl_core.errors import UsageError
from stpl_core.readers.libraries import reads_with
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import sink_error, write_whole, write_whole_directory

SUFFIXES = (".npz", ".npy", ".png", ".gif", ".mp4", ".nc", ".tif", ".tiff", ".zarr")
"""What `write_nowcast` makes."""

_MANY = (".npz", ".npy")


def check_installed(suffix: str) -> None:
    """Raise MissingExtraError where the libraries for files of this kind are not installed."""
    if suffix in (".tif", ".tiff"):
        with reads_with("geotiff"):
            import rasterio  # noqa: F401
    elif suffix == ".mp4":
        with reads_with("video"):
            import av  # noqa: F401
    elif suffix in (".nc", ".zarr"):
        with reads_with("netcdf" if suffix == ".nc" else "zarr"):
            import pyproj  # noqa: F401
            import xarray  # noqa: F401

            if suffix == ".nc":
                import netCDF4  # noqa: F401
            else:
                import zarr  # noqa: F401


def write_nowcast(out: Path, nowcast: Nowcast) -> None:
    """Write a nowcast; it is there whole or not at all.

    Args:
        out: ends in one of `SUFFIXES`. `.npy` holds the predicted frames alone.
        nowcast: one nowcast; for .npz and .npy also a batch of them, with one axis more.

    Raises:
        UsageError: a batch in a file for one.
        MissingExtraError: a library is not installed.
        SinkError: it could not be written.
    """
    suffix = out.suffix.lower()
    if suffix == ".zarr":
        _refuse_many(suffix, nowcast)
        from stpl_runtime.sinks.cf import write_zarr

        write_whole_directory(out, lambda store: write_zarr(nowcast, store))
        return
    try:
        content = bytes_for(suffix, nowcast)
    except OSError as error:
        raise sink_error(out, 0, error) from error
    write_whole(out, content)


def bytes_for(suffix: str, nowcast: Nowcast) -> bytes:
    """The content of a file of this kind; see `write_nowcast`.

    Raises:
        OSError: a library wants a file for a moment, and there is no room for it.
    """
    if suffix == ".npz":
        from stpl_runtime.sinks.npz import npz_bytes

        return npz_bytes(nowcast)
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, nowcast.frames)
        return buffer.getvalue()
    _refuse_many(suffix, nowcast)
    if suffix == ".nc":
        from stpl_runtime.sinks.cf import netcdf_bytes

        return netcdf_bytes(nowcast)
    if suffix in (".tif", ".tiff"):
        from stpl_runtime.sinks.geotiff import geotiff_bytes

        return geotiff_bytes(nowcast)
    if suffix == ".png":
        from stpl_runtime.sinks.png import png_bytes

        return png_bytes(nowcast)
    if suffix == ".mp4":
        from stpl_runtime.sinks.mp4 import mp4_bytes

        return mp4_bytes(nowcast)
    from stpl_runtime.sinks.gif import gif_bytes

    return gif_bytes(nowcast)


def _refuse_many(suffix: str, nowcast: Nowcast) -> None:
    if nowcast.frames.ndim != 4:
        what = "picture" if suffix in (".png", ".gif", ".mp4") else "file"
        raise UsageError(
            f"{len(nowcast.frames)} sequences for one {suffix} {what}",
            expected="one sequence (T, C, H, W)",
            fix="--out FILE.npz for many",
        )
