"""When the frames of a CF variable were observed, and over which time amounts were added up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.reader import ReadOptions, Times
from stpl_core.readers.cf_clock import decoded, duration_us, is_clock, unit_s
from stpl_core.readers.names import file_time
from stpl_core.readers.stamps import as_datetime64, one_stamp

if TYPE_CHECKING:
    import xarray as xr

_REFERENCE = re.compile(r"reference|analysis|creat|issue|init|start|begin|run|end\b", re.IGNORECASE)
_LEADS = ("forecast_period", "lead_time")
_RUN = re.compile(r"ref|analysis|init|issue|run", re.IGNORECASE)
"""Names of clocks that say when a forecast began."""
_STEPS = ("step", "lead", "leadtime", "lead_time", "forecast_time", "fhour", "forecast_period")
_TIME_DIMS = ("time", "times", "t", "valid_time")
_INTERVAL = re.compile(r"time: sum\s*\(interval: ([\d.]+) ([A-Za-z]+)\)")


def times_and_values(
    opened: xr.Dataset,
    values: xr.DataArray,
    plane: tuple[str, str],
    path: Path,
    options: ReadOptions,
) -> tuple[Times, xr.DataArray, str]:
    """Times `(T,)`, the values with a dimension `time`, and the name of the clock.

    A clock is known by its units, whatever its name; a lead time is added to the one scalar clock.
    Where a frame has none, a global attribute or the name of the file counts.

    Args:
        opened: coordinates, numbers as numbers (times too).
        values: the field, without dimensions of one.
        plane: its dimensions y and x.
        path: the file.
        options: how times are found in names.

    Raises:
        FrameError: no time, or more than one that it may be.
    """
    along = [str(dim) for dim in values.dims if dim not in plane]
    if options.time_format is not None and not along:  # the user's word goes before any clock
        return np.array([file_time(path, options)]), _renamed(values, None), _scalar_clock(opened)
    clocks = {dim: name for dim in along if (name := _clock_along(opened, dim))}
    leads = [dim for dim in along if dim not in clocks and _lead_along(opened, dim) is not None]
    if len(clocks) > 1 or (clocks and leads):
        both = [*clocks, *leads]
        raise FrameError(
            f"{path} has {values.name} over the times {' and '.join(both)}",
            expected="one dimension of time",
            fix=f"--select {both[0]}=" + _first_label(opened, both[0]),
        )
    scalar = _scalar_clock(opened)
    if clocks:
        ((dim, name),) = clocks.items()
        times = decoded(opened[name], str(path)) + _lead_beside(opened, name, dim, path)
        return times, _renamed(values, dim), name
    if leads and scalar:
        lead = _lead_along(opened, leads[0])
        assert lead is not None
        start = decoded(opened[scalar], str(path)).reshape(())
        times = start + lead.astype("timedelta64[us]")
        return times.astype("datetime64[ns]"), _renamed(values, leads[0]), scalar
    _refuse_unread(opened, along, path)
    _refuse_unsaid(values, along, path)
    if scalar:
        stamp = decoded(opened[scalar], str(path)) + _lead_beside(opened, scalar, "", path)
    else:
        stamp = np.asarray(_outside(opened, path, options, str(values.name)))
    return stamp.reshape(1), _renamed(values, None), scalar


def accumulation_s(
    opened: xr.Dataset, attributes: dict[str, object], clock: str, times: Times
) -> float | None:
    """Seconds over which an amount was added up, from bounds, a start or the cell methods."""
    methods = str(attributes.get("cell_methods", ""))
    if re.search(r"time: (mean|point|maximum|minimum)", methods):
        return None
    bounds = str(opened[clock].attrs.get("bounds", "")) if clock else ""
    spans = None
    if bounds in opened.variables and opened[bounds].shape[-1:] == (2,) and unit_s(opened[clock]):
        spans = _between(opened[bounds], opened[clock])
    elif "start_time" in opened.variables and is_clock(opened["start_time"]):
        start = decoded(opened["start_time"], "start_time")
        spans = (times - start).astype("timedelta64[us]").astype(np.float64) / 1e6
    if spans is not None:
        span = float(np.median(spans))
        return span if span > 0 and np.allclose(spans, span, rtol=1e-3) else None
    match = _INTERVAL.search(methods)
    if match is None or len(times) < 2:
        return None
    # CF calls that the spacing of what was added; only where it is the step is it the period.
    stated = _seconds(float(match[1]), match[2])
    steps = np.diff(np.sort(times)).astype("timedelta64[us]").astype(np.float64) / 1e6
    return stated if stated and np.allclose(np.median(steps), stated, rtol=1e-3) else None


def _between(bounds: xr.DataArray, clock: xr.DataArray) -> np.ndarray:
    """Seconds between the two bounds, in their own unit where they have one, else the clock's."""
    if is_clock(bounds):
        edges = decoded(bounds, str(bounds.name)).astype("datetime64[us]").astype(np.float64) / 1e6
    else:
        edges = bounds.values.astype(np.float64) * (unit_s(clock) or 0.0)
    return np.asarray(edges[..., 1] - edges[..., 0])


def _seconds(count: float, unit: str) -> float | None:
    import xarray as xr

    found = duration_us(xr.Variable((), count, {"units": unit}))
    return None if found is None else float(found) / 1e6


def _clock_along(opened: xr.Dataset, dim: str) -> str:
    """The clock along a dimension; empty where there is none."""
    found = [
        str(name)
        for name, variable in opened.variables.items()
        if variable.dims == (dim,) and is_clock(variable, str(name))
    ]
    return _best(opened, found)


def _lead_beside(opened: xr.Dataset, name: str, dim: str, path: Path) -> np.ndarray:
    """What is added to a clock: the lead times beside one that says when forecasts began.

    Raises:
        FrameError: beside it stands a time that nobody understands.
    """
    nothing = np.zeros((), "timedelta64[ns]")
    standard = str(opened[name].attrs.get("standard_name", ""))
    if standard == "time" or not (_RUN.search(standard) or _RUN.search(name)):
        return nothing
    for other, variable in opened.variables.items():
        alike = variable.dims == (dim,) or variable.size == 1
        if alike and _is_lead(str(other), variable):
            lead = duration_us(variable)
            if lead is not None:
                shape = () if variable.size == 1 else lead.shape
                return lead.reshape(shape).astype("timedelta64[us]").astype("timedelta64[ns]")
    _refuse_unread(opened, [dim], path)
    return nothing


def _refuse_unsaid(values: xr.DataArray, along: list[str], path: Path) -> None:
    """Raise where several frames have no times at all."""
    for dim in along:
        if dim.lower() in _TIME_DIMS:
            raise FrameError(
                f"{path} has {values.name} over {', '.join(map(str, values.dims))}: "
                f"{values.sizes[dim]} along {dim}, and no variable says when",
                expected=f"one along {dim} in seconds, minutes, hours or days since a date",
                fix=f"ncap2 -s '{dim}=array(0,5,${dim});{dim}@units=\"minutes since 2024-06-01 "
                "12:00\"' IN OUT, with the true start and step",
            )


def _lead_along(opened: xr.Dataset, dim: str) -> np.ndarray | None:
    """Microseconds of the lead times along a dimension; None where there are none."""
    for name, variable in opened.variables.items():
        if variable.dims == (dim,) and _is_lead(str(name), variable):
            return duration_us(variable)
    return None


def _is_lead(name: str, variable: xr.Variable) -> bool:
    return name in _STEPS or variable.attrs.get("standard_name") in _LEADS


def _scalar_clock(opened: xr.Dataset) -> str:
    found = [
        str(name)
        for name, variable in opened.variables.items()
        if _is_scalar(str(name), variable) and is_clock(variable, str(name))
    ]
    return _best(opened, found)


def _is_scalar(name: str, variable: xr.Variable) -> bool:
    """Whether it is one number; along a dimension of its own that the field need not have."""
    alone = variable.dims == (name,) or variable.attrs.get("standard_name") == "time"
    return variable.ndim == 0 or (variable.size == 1 and alone)


def _best(opened: xr.Dataset, names: list[str]) -> str:
    """Of several clocks the one that says when: not the start of a run or of an interval."""

    def rank(name: str) -> tuple[bool, bool, bool, bool]:
        standard = str(opened[name].attrs.get("standard_name", ""))
        other = bool(_REFERENCE.search(standard) or _REFERENCE.search(name))
        return (other, name != "valid_time", standard != "time", name != "time")

    return min(names, key=rank, default="")


def _renamed(values: xr.DataArray, dim: str | None) -> xr.DataArray:
    """Only the numbers, over `time` in place of `dim` (None: a new one)."""
    bare = values.reset_coords(drop=True)
    bare = bare.drop_vars([name for name in bare.coords if name == "time" or name == dim])
    if dim is None:
        return bare.expand_dims("time")
    return bare if dim == "time" else bare.rename({dim: "time"})


def _refuse_unread(opened: xr.Dataset, along: list[str], path: Path) -> None:
    """Raise where there is a time that nobody understands."""
    for name in opened.variables:
        variable = opened[name]
        if variable.ndim > 1 or (variable.size > 1 and variable.dims[0] not in along):
            continue
        says = variable.attrs.get("standard_name") == "time" or variable.attrs.get("axis") == "T"
        if (says or str(name) == "time") and not is_clock(variable):
            units = variable.attrs.get("units")
            raise FrameError(
                f"{path} has {name} in {units!r}" if units else f"{path} has {name} without units",
                expected="seconds, minutes, hours or days since a date",
                fix=f"ncatted -a units,{name},o,c,'seconds since 2024-06-01' {path.name}, with the "
                f"true unit and date, or ncks -C -x -v {name} IN OUT where the name has the time",
            )


def _outside(opened: xr.Dataset, path: Path, options: ReadOptions, variable: str) -> np.datetime64:
    """The time of a frame that has no clock."""
    if options.time_format is None and "nominal_product_time" in opened.attrs:
        found = one_stamp(f"{opened.attrs['nominal_product_time']}")
        if found is not None:
            return as_datetime64(found.time)
    stamp = file_time(path, options)
    vague = stamp is None or stamp == stamp.astype("datetime64[D]")  # none, or a date alone
    if options.time_format is None and vague:
        stated = _in_attributes(opened)
        if stated is not None and (stamp is None or stamp == stated.astype("datetime64[D]")):
            return stated
    if stamp is not None:
        return stamp
    raise FrameError(
        f"{path} says no time for {variable}: no clock goes with it, and its name has none",
        expected="a coordinate time, a scalar one, or a time in the file's name",
        fix="--time-format PATTERN for the time in its name",
    )


def _in_attributes(opened: xr.Dataset) -> np.datetime64 | None:
    for key in ("time_coverage_start", "start_time", "date_time"):
        found = one_stamp(str(opened.attrs.get(key, "")))
        if found is not None:
            return as_datetime64(found.time)
    return None


def _first_label(opened: xr.Dataset, dim: str) -> str:
    from stpl_core.readers.cf_dims import label_texts

    return label_texts(opened, opened[dim], dim)[0] if dim in opened.variables else "0"
