"""Nowcasts as CF datasets: NetCDF and Zarr.

    nowcast                  (time, [channel], y, x) float32; NaN (_FillValue) where nothing was
                             observed in the newest frame
    time                     (time) when each frame is valid
    lead_time                (time) seconds after the newest observation, CF's forecast_period
    forecast_reference_time  () time of the newest observation
    y, x, crs                those of the observed frames: centres of the pixels, CF grid mapping

Frames without times have the dimension `step`, 1 to K, instead of time.
"""

from __future__ import annotations

import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_deploy.grid import pixel_grid
from stpl_deploy.readers.dataset import TIME_UNITS, grid_coordinates
from stpl_deploy.readers.extras import reads_with
from stpl_runtime.nowcast import Nowcast

if TYPE_CHECKING:
    import xarray as xr

_NAME = "nowcast"
_SECONDS = "seconds since 1970-01-01T00:00:00"


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
    with tempfile.TemporaryDirectory(prefix="stpl-nowcast-") as folder:
        path = Path(folder) / "nowcast.nc"
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
    return xr.Dataset(
        {_NAME: (dims, frames, attributes)},
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
    made = nowcast.made_by
    facts = {
        "Conventions": "CF-1.8",
        "title": f"nowcast of {nowcast.quantity}",
        "source": ", ".join(f"{key} {value}" for key, value in made.items()) or "stpl-deploy",
        "history": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ} stpl-deploy",
        "input": nowcast.source_id,
        **nowcast.notes,
    }
    if nowcast.context_times:
        facts["input_times"] = " ".join(
            f"{_naive(time).isoformat()}Z" for time in nowcast.context_times
        )
    return facts


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
