"""The rain of `demo --radar`: an hour and a half of real radar, which comes with the shipped model.

The model's held-out sequences are cut from composites of the Royal Netherlands Meteorological
Institute. Two of them lie on the same pixels, five minutes apart: together they are 19 frames.
"""

from __future__ import annotations

import webbrowser
from pathlib import Path

import numpy as np

from stpl_core.codec import Array
from stpl_core.grid import Grid
from stpl_core.reader import Times
from stpl_core.readers.dataset import grid_coordinates
from stpl_core.readers.npz import open_npz
from stpl_core.readers.projections import wkt_of
from stpl_deploy.extras import needs
from stpl_train.pretrained import PREFIX, run_path
from stpl_train.run import open_run

MODEL = f"{PREFIX}radar-nowcast"
FIRST = np.datetime64("2010-08-26T03:50", "ns")
CADENCE = np.timedelta64(300, "s")
CREDITS = {
    "institution": "KNMI",
    "licence": "CC BY 4.0",
    "attribution": "KNMI radar composites of 26 August 2010, 1 km, cut to a part",
}
_PROJECTION = "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378137 +b=6356752 +units=m"
_LEFT_M, _TOP_M, _PIXEL_M = 192_000.0, -3_842_000.0, 1000.0
_STEP = 0.12
"""mm/h: what KNMI counts in, 0.01 mm in five minutes; the sequences keep it in half precision."""


def rain() -> tuple[Array, Times]:
    """Rain rate `(19, 1, H, W)` in mm/h, NaN where nothing was observed; and the times `(19,)`."""
    codec = open_run(Path(MODEL)).recipe.data.codec
    with open_npz(run_path(Path(MODEL)) / "validation.npz") as archive:
        scaled, observed = archive["frames"], archive["observed"]  # (N, 18, 1, H, W), (N, 18, H, W)
    values = np.concatenate([scaled[0], scaled[1][-1:]]).astype(np.float32)  # (19, 1, H, W)
    seen = np.concatenate([observed[0], observed[1][-1:]])[:, None]  # (19, 1, H, W)
    rates = np.round(codec.physical_from_model(values) / _STEP) * np.float32(_STEP)
    times = FIRST + np.arange(len(rates)) * CADENCE
    return np.where(seen, rates, np.float32(np.nan)).astype(np.float32), times


def write_rain(folder: Path) -> list[Path]:
    """Write a NetCDF for each frame, named by its time, as a weather service would; return them.

    Raises:
        MissingExtraError: without the extra `netcdf`.
    """
    with needs("netcdf"):
        import netCDF4  # noqa: F401  # xarray imports it, and would not name the extra
        import xarray as xr
    frames, times = rain()
    height, width = frames.shape[2:]
    affine = (_LEFT_M, _TOP_M, _PIXEL_M, -_PIXEL_M)
    grid = Grid(affine, height, width, crs_wkt=wkt_of(_PROJECTION, "the demo"))
    about = {"units": "mm h-1", "long_name": "rain rate", "grid_mapping": "crs"}
    folder.mkdir()
    written = []
    for frame, time in zip(frames, times, strict=True):
        made = xr.Dataset(
            {"rain_rate": (("time", "y", "x"), frame, about)},
            {"time": time[None], **grid_coordinates(grid)},
            {"Conventions": "CF-1.11", **CREDITS},
        )
        path = folder / f"{time.astype('datetime64[m]').item():%Y%m%d%H%M}.nc"
        made.to_netcdf(path, encoding={"rain_rate": {"zlib": True}})
        written.append(path)
    return written


def show(url: str) -> None:
    """Open a page in the browser; where none opens, its address is on the screen anyway."""
    webbrowser.open(url)
