"""Nowcasts as CF datasets: NetCDF and Zarr.

    nowcast                  (time, [channel], y, x) float32; NaN (_FillValue) where nothing was
                             observed in the newest frame
    time                     (time) when each frame is valid
    lead_time                (time) seconds after the newest observation, CF's forecast_period
    forecast_reference_time  () time of the newest observation
    y, x, crs                those of the observed frames: centres of the pixels, CF grid mapping
    observed                 (y, x) 1 where the newest frame had data; only where it lacked some

Frames without times have the dimension `step`, 1 to K, instead of time.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.grid import pixel_grid
from stpl_core.readers.dataset import TIME_UNITS, grid_coordinates
from stpl_core.readers.libraries import NETCDF_LOCK, reads_with
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import (
    SinkSpec,
    write_over_directory,
    write_whole_directory,
    written_aside,
)
from stpl_runtime.sinks.directory import DirectorySink
from stpl_runtime.sinks.facts import facts
from stpl_runtime.sinks.writers import check_installed, write_nowcast

if TYPE_CHECKING:
    import xarray as xr

_NAME = "nowcast"
_SECONDS = "seconds since 1970-01-01T00:00:00"


def open_netcdf(rest: str, spec: SinkSpec | None = None) -> DirectorySink:
    """`nc:DIR` or `nc:FILE.nc`.

    Raises:
        MissingExtraError: netCDF4 or xarray is not installed.
    """
    check_installed(".nc")
    return DirectorySink("nc", (".nc",), rest, spec, write_nowcast)


def open_zarr(rest: str, spec: SinkSpec | None = None) -> DirectorySink:
    """`zarr:DIR` or `zarr:STORE.zarr`: a store for each nowcast, or the newest one alone.

    One store that grows along forecast_reference_time would be half-written after a kill -9 (the
    axis, its coordinates and the chunks are different files) and could not lose its oldest part.
    xarray joins the stores: `concat(STORES, "forecast_reference_time")`, each opened by `open_zarr`
    and with `swap_dims(time="lead_time")`.

    Raises:
        MissingExtraError: zarr or xarray is not installed.
    """
    check_installed(".zarr")
    return DirectorySink("zarr", (".zarr",), rest, spec, _put_zarr)


def _put_zarr(path: Path, nowcast: Nowcast) -> None:
    put = write_over_directory if path.exists() else write_whole_directory
    put(path, lambda store: write_zarr(nowcast, store))


def netcdf_bytes(nowcast: Nowcast) -> bytes:
    """A nowcast as a NetCDF-4 file.

    Raises:
        MissingExtraError: netCDF4 or xarray is not installed.
    """
    with reads_with("netcdf"):
        import netCDF4  # noqa: F401  # xarray imports it, and would not name the extra
    dataset = dataset_of(nowcast, "netcdf")
    encoding = _encoding(dataset, "chunksizes")
    encoding[_NAME].update(zlib=True, complevel=4, shuffle=True)
    with written_aside("nowcast.nc") as path:
        with NETCDF_LOCK:
            dataset.to_netcdf(path, engine="netcdf4", encoding=encoding)
        return path.read_bytes()


def write_zarr(nowcast: Nowcast, store: Path) -> None:
    """Fill the directory `store` with a nowcast as Zarr 2, one chunk a frame.

    Raises:
        MissingExtraError: zarr or xarray is not installed.
    """
    with reads_with("zarr"):
        import zarr  # noqa: F401  # as above
    dataset = dataset_of(nowcast, "zarr")
    encoding = _encoding(dataset, "chunks")
    # Zarr 2, since readers of the third format are still few; metadata in one place.
    dataset.to_zarr(store, mode="w", encoding=encoding, zarr_format=2, consolidated=True)


def dataset_of(nowcast: Nowcast, extra: str) -> xr.Dataset:
    """The dataset that both formats hold.

    Args:
        nowcast: one nowcast.
        extra: what the user would install where a library is missing.
    """
    with reads_with(extra):
        import xarray as xr
    frames = nowcast.masked()  # (K, C, H, W)
    grid = nowcast.grid or pixel_grid(*frames.shape[2:])
    timed = bool(nowcast.valid_times)
    dims = ["time" if timed else "step", "channel", "y", "x"]
    if frames.shape[1] == 1:
        del dims[1]
        frames = frames[:, 0]  # (K, H, W)
    attributes = {"long_name": f"predicted {nowcast.quantity}", "units": nowcast.units}
    if nowcast.standard_name:
        attributes["standard_name"] = nowcast.standard_name
    if grid.crs_wkt:
        attributes["grid_mapping"] = "crs"
    if nowcast.observed is not None:
        attributes["ancillary_variables"] = "observed"
    return xr.Dataset(
        {_NAME: (dims, frames, attributes), **_observed(nowcast)},
        coords={**grid_coordinates(grid), **(_times(nowcast) if timed else _steps(nowcast))},
        attrs=_facts(nowcast),
    )


def _times(nowcast: Nowcast) -> dict[str, Any]:
    assert nowcast.issue_time is not None, "a nowcast with times"
    lead = np.array([(time - nowcast.issue_time).total_seconds() for time in nowcast.valid_times])
    return {
        "time": (
            "time",
            np.array([_naive(time) for time in nowcast.valid_times], "datetime64[ns]"),
            {"standard_name": "time", "long_name": "valid time", "axis": "T"},
        ),
        "lead_time": (
            "time",
            lead,
            {"standard_name": "forecast_period", "long_name": "lead time", "units": "s"},
        ),
        "forecast_reference_time": (
            (),
            np.datetime64(_naive(nowcast.issue_time), "ns"),
            {
                "standard_name": "forecast_reference_time",
                "long_name": "time of the newest observation",
            },
        ),
    }


def _steps(nowcast: Nowcast) -> dict[str, Any]:
    steps = np.arange(1, len(nowcast.frames) + 1, dtype=np.int32)
    return {"step": ("step", steps, {"long_name": "frames after the newest observation"})}


def _facts(nowcast: Nowcast) -> dict[str, str]:
    title = f"nowcast of {nowcast.quantity}"
    return {"Conventions": "CF-1.8", "title": title, **facts(nowcast)}


def _observed(nowcast: Nowcast) -> dict[str, Any]:
    """The mask as a variable, where there is one."""
    if nowcast.observed is None:
        return {}
    meaning = {
        "standard_name": "status_flag",
        "long_name": "whether the newest frame had data",
        "flag_values": np.array([0, 1], np.int8),
        "flag_meanings": "not_observed observed",
    }
    return {"observed": (("y", "x"), nowcast.observed.astype(np.int8), meaning)}


def _naive(time: datetime) -> datetime:
    return time.astimezone(timezone.utc).replace(tzinfo=None)


def _encoding(dataset: xr.Dataset, chunks: str) -> dict[str, Any]:
    shape = dataset[_NAME].shape
    encoding: dict[str, Any] = {
        _NAME: {chunks: (1, *shape[1:]), "_FillValue": np.float32(np.nan), "dtype": "float32"}
    }
    for name, variable in dataset.coords.items():
        if variable.dtype.kind == "M":
            whole = not (variable.values.astype(np.int64) % 10**9).any()
            encoding[str(name)] = {"units": _SECONDS if whole else TIME_UNITS, "dtype": "int64"}
        elif variable.dtype.kind == "f":
            encoding[str(name)] = {"_FillValue": None}
    return encoding
