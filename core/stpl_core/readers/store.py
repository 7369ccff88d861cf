"""Writes what was read: a Zarr store for training, a NetCDF file, or one .npz.

Zarr takes archives larger than memory: pieces are appended as they are read, one chunk a frame, so
that a window costs the reading of its own frames. Whole or not there at all, like all we write.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.errors import FrameError, UsageError
from stpl_core.files import atomic_directory, atomic_file, refuse_existing
from stpl_core.reader import ReadOptions
from stpl_core.readers.converted import chunk_bytes, grid_of
from stpl_core.readers.dataset import TIME_UNITS, dataset_from_joined, true_places
from stpl_core.readers.join import Joined
from stpl_core.readers.libraries import NETCDF_LOCK, reads_with
from stpl_core.readers.opening import joined_pieces, open_frames
from stpl_core.readers.survey import Survey, Surveyor
from stpl_core.safety.half_written import held_directory

if TYPE_CHECKING:
    import xarray as xr

_BLOCK_BYTES = 2**26
"""Frames gathered before they are appended to a store."""
_COLUMN_CHUNK = 4096
_TRIED_BYTES = 2**20

OnProgress = Callable[[int], None]
"""Called with how many frames were written so far."""


def convert(
    path: Path,
    out: Path,
    reader: str | None = None,
    options: ReadOptions | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Survey:
    """Read `path` once and write it as `out`; the ending .zarr, .nc or .npz says how.

    Raises:
        FrameError: see `open_frames`; or, for Zarr, files whose names are not in time order.
        UsageError: `out` is there already, or ends in something else.
    """
    writers = {".zarr": _zarr, ".nc": _netcdf, ".npz": _npz}
    writer = writers.get(out.suffix.lower())
    if writer is None:
        raise UsageError(
            f"--out {out} ends in {out.suffix or 'nothing'}",
            expected=", ".join(writers),
            fix=f"--out {out.with_suffix('.zarr')}",
        )
    refuse_existing(out)
    return writer(path, out, reader, options, on_progress)


def _zarr(
    path: Path, out: Path, reader: str | None, options: ReadOptions | None, on_progress: OnProgress
) -> Survey:
    with reads_with("zarr"):
        import zarr
    surveyor = Surveyor()
    block: list[Joined] = []
    held = written = 0
    with (
        atomic_directory(out) as store,
        closing(joined_pieces(path, reader, options)) as pieces,
    ):
        last: np.datetime64 | None = None
        names: list[str] = []
        for part, names in pieces:
            last = _in_order(part, last)
            surveyor.add(part, names)
            block.append(part)
            held += part.piece.frames.nbytes
            if held >= _BLOCK_BYTES:
                written += _append(block, store, written == 0)
                held = 0
                on_progress(written)
        if block:
            _append(block, store, written == 0)
        survey = surveyor.survey()
        on_progress(survey.frames)
        group = zarr.open_group(str(store), mode="r+")
        group.attrs["chunk_bytes"] = chunk_bytes(store)
        group.attrs["files"] = "\n".join(names)
        if survey.cadence_s is not None:
            group.attrs["cadence_s"] = survey.cadence_s
    return survey


def _in_order(part: Joined, last: np.datetime64 | None) -> np.datetime64:
    times = part.time if last is None else np.concatenate([[last], part.time])
    if (times[1:] <= times[:-1]).any():
        raise FrameError(
            f"{part.piece.source} is not later than the file before it in the order of names",
            expected="names that sort by time",
            fix="rename the files, or --out X.nc, which sorts in memory",
        )
    return np.datetime64(part.time[-1])


def _append(block: list[Joined], store: Path, first: bool) -> int:
    """Write the block and empty it; return how many frames it had."""
    joined = dataset_from_joined(block, [])
    how: dict[str, Any] = {"consolidated": False, "write_empty_chunks": True}
    if first:
        joined = _with_places(joined)
        joined.to_zarr(store, mode="w", encoding=_encoding(joined, "chunks"), **how)
    else:
        appended = joined.drop_vars(
            [name for name in joined.variables if not _has_time(joined, name)]
        )
        appended.to_zarr(store, append_dim="time", **how)
    return int(joined.sizes["time"])


def _with_places(joined: xr.Dataset) -> xr.Dataset:
    """With the latitude and longitude of every pixel, for those who know no projections."""
    grid = grid_of(joined)
    if not grid.crs_wkt or grid.geographic:
        return joined
    return joined.assign_coords(true_places(grid))


def _has_time(joined: xr.Dataset, name: Any) -> bool:
    return "time" in joined[name].dims


def _encoding(joined: xr.Dataset, chunks: str) -> dict[str, Any]:
    """Chunks of one frame; time as integers; no fill value where nothing can be missing."""
    encoding: dict[str, Any] = {}
    for name, variable in joined.variables.items():
        if variable.ndim > 1 and "time" in variable.dims:
            encoding[str(name)] = {chunks: (1, *variable.shape[1:])}
        elif "time" in variable.dims and chunks == "chunks":
            encoding[str(name)] = {chunks: (_COLUMN_CHUNK,)}
        elif variable.dtype.kind == "f":
            encoding[str(name)] = {"_FillValue": None}
    encoding.setdefault("time", {}).update(units=TIME_UNITS, dtype="int64")
    return encoding


def _netcdf(
    path: Path, out: Path, reader: str | None, options: ReadOptions | None, on_progress: OnProgress
) -> Survey:
    with reads_with("netcdf"):
        import netCDF4  # noqa: F401  # xarray imports it, and would not name the extra
    joined, survey = _in_memory(path, reader, options)
    joined = _with_places(joined)
    encoding = _encoding(joined, "chunksizes")
    for name in ("frames", "state"):
        encoding[name].update(zlib=True, complevel=4, shuffle=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with held_directory(out) as folder:
        temporary = folder / "partial.nc"
        try:
            with NETCDF_LOCK:
                joined.to_netcdf(
                    temporary, engine="netcdf4", encoding=encoding, unlimited_dims=["time"]
                )
        except RuntimeError as error:  # the library's, which does not say what the disk lacks
            raise _disk_error(folder, out, error) from error
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(out)
    on_progress(survey.frames)
    return survey


def _disk_error(folder: Path, out: Path, error: RuntimeError) -> OSError:
    """Why nothing can be written into a folder, as the system says it where it does."""
    try:
        (folder / "tried").write_bytes(bytes(_TRIED_BYTES))
    except OSError as found:
        return OSError(found.errno, found.strerror, str(out))
    return OSError(errno.EIO, str(error), str(out))


def _npz(
    path: Path, out: Path, reader: str | None, options: ReadOptions | None, on_progress: OnProgress
) -> Survey:
    joined, survey = _in_memory(path, reader, options)
    variables = {str(name): variable for name, variable in joined.variables.items()}
    described = {
        "variables": {
            name: {"dims": list(variable.dims), "attrs": _plain(variable.attrs)}
            for name, variable in variables.items()
        },
        "attrs": _plain(joined.attrs),
    }
    arrays: dict[str, Any] = {name: variable.values for name, variable in variables.items()}
    with atomic_file(out) as file:
        np.savez_compressed(file, dataset=np.array(json.dumps(described)), **arrays)
    on_progress(survey.frames)
    return survey


def _plain(attributes: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(key): value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        for key, value in attributes.items()
    }


def _in_memory(
    path: Path, reader: str | None, options: ReadOptions | None
) -> tuple[xr.Dataset, Survey]:
    from stpl_core.readers.survey import survey_of

    joined = open_frames(path, reader, options).load()
    for variable in joined.variables.values():
        variable.encoding.clear()  # of the file it came from
    joined.attrs.pop("chunk_bytes", None)
    return joined, survey_of(joined)
