"""Nowcasts as CF datasets, for the sinks of NetCDF and Zarr.

    nowcast                  (time, [channel], y, x) float32; NaN (_FillValue) where nothing was
                             observed in the newest frame
    time                     (time) when each frame is valid
    lead_time                (time) seconds after the newest observation, CF's forecast_period
    forecast_reference_time  () time of the newest observation
    y, x, crs                those of the observed frames: centres of the pixels, CF grid mapping
    observed                 (y, x) 1 where the newest frame had data; only where it lacked some
    probability_of_exceedance
                             (threshold, time, [channel], y, x) float32, 0 to 1: how likely a pixel
                             is to be at or above a threshold; only where it was asked for
    threshold                (threshold) in the unit of `nowcast`
    members                  (realization, time, [channel], y, x) float32: an ensemble, where it was
                             asked for; NaN as in `nowcast`
    realization              (realization) number of the member, 1 to M

Frames without times have the dimension `step`, 1 to K, instead of time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.grid import pixel_grid
from stpl_core.readers.dataset import CONVENTIONS, TIME_UNITS, grid_coordinates
from stpl_core.readers.libraries import reads_with
from stpl_runtime.chances import CHANCE
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sinks.facts import facts
from stpl_runtime.timing import naive_utc

if TYPE_CHECKING:
    import xarray as xr

NAME = "nowcast"
"""Of the variable."""
MEMBERS = "members"
"""Of that of an ensemble."""
_SECONDS = "seconds since 1970-01-01T00:00:00"


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
    variables: dict[str, Any] = {NAME: (dims, frames, attributes)}
    variables |= _chances(nowcast, dims, attributes) | _observed(nowcast)
    variables |= _members(nowcast, dims, attributes)
    axis = _times(nowcast) if timed else _steps(nowcast)
    coordinates = {
        **grid_coordinates(grid),
        **axis,
        **_thresholds(nowcast),
        **_realizations(nowcast),
    }
    return xr.Dataset(variables, coords=coordinates, attrs=_facts(nowcast))


def _chances(nowcast: Nowcast, dims: list[str], of: dict[str, str]) -> dict[str, Any]:
    """How likely each threshold is to be reached, where that is known."""
    if nowcast.chances is None:
        return {}
    values = np.moveaxis(nowcast.masked_chances(), 1, 0)  # (Q, K, C, H, W)
    if "channel" not in dims:
        values = values[:, :, 0]  # (Q, K, H, W)
    shared = {key: of[key] for key in ("grid_mapping", "ancillary_variables") if key in of}
    about = f"probability that {nowcast.quantity} is at or above the threshold"
    attributes = {"long_name": about, "units": "1"} | shared
    return {CHANCE: (["threshold", *dims], values, attributes)}


def _thresholds(nowcast: Nowcast) -> dict[str, Any]:
    if nowcast.chances is None:
        return {}
    attributes = {"long_name": f"threshold of {nowcast.quantity}", "units": nowcast.units}
    if nowcast.standard_name:
        attributes["standard_name"] = nowcast.standard_name
    return {"threshold": ("threshold", np.asarray(nowcast.chances.thresholds), attributes)}


def _members(nowcast: Nowcast, dims: list[str], of: dict[str, str]) -> dict[str, Any]:
    """An ensemble, where there is one."""
    if nowcast.members is None:
        return {}
    values = nowcast.masked_members()  # (M, K, C, H, W)
    if "channel" not in dims:
        values = values[:, :, 0]  # (M, K, H, W)
    about = f"predicted {nowcast.quantity}, members of an ensemble"
    return {MEMBERS: (["realization", *dims], values, of | {"long_name": about})}


def _realizations(nowcast: Nowcast) -> dict[str, Any]:
    if nowcast.members is None:
        return {}
    numbers = np.arange(1, len(nowcast.members) + 1, dtype=np.int32)
    attributes = {"standard_name": "realization", "long_name": "member", "axis": "E"}
    return {"realization": ("realization", numbers, attributes)}


def _times(nowcast: Nowcast) -> dict[str, Any]:
    assert nowcast.issue_time is not None, "a nowcast with times"
    lead = np.array([(time - nowcast.issue_time).total_seconds() for time in nowcast.valid_times])
    return {
        "time": (
            "time",
            np.array([naive_utc(time) for time in nowcast.valid_times], "datetime64[ns]"),
            {"standard_name": "time", "long_name": "valid time", "axis": "T"},
        ),
        "lead_time": (
            "time",
            lead,
            {"standard_name": "forecast_period", "long_name": "lead time", "units": "s"},
        ),
        "forecast_reference_time": (
            (),
            np.datetime64(naive_utc(nowcast.issue_time), "ns"),
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
    return {"Conventions": CONVENTIONS, "title": title, **facts(nowcast)}


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


def encoding_of(dataset: xr.Dataset, chunks: str) -> dict[str, Any]:
    """How xarray writes `dataset_of`: one chunk a frame, also of each threshold and member.

    Args:
        dataset: from `dataset_of`.
        chunks: what the format calls its chunks.
    """
    encoding: dict[str, Any] = {}
    for variable_name, single in ((NAME, 1), (CHANCE, 2), (MEMBERS, 2)):
        if variable_name in dataset:
            size = (1,) * single + dataset[variable_name].shape[single:]
            encoding[variable_name] = {
                chunks: size,
                "_FillValue": np.float32(np.nan),
                "dtype": "float32",
            }
    for name, variable in dataset.coords.items():
        if variable.dtype.kind == "M":
            whole = not (variable.values.astype(np.int64) % 10**9).any()
            encoding[str(name)] = {"units": _SECONDS if whole else TIME_UNITS, "dtype": "int64"}
        elif variable.dtype.kind == "f":
            encoding[str(name)] = {"_FillValue": None}
    return encoding
