"""Small files of one field as services and users write them, by netCDF4-python and h5py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

N = 8
EAST = 5 + 0.01 * np.arange(N)
NORTH = 55 - 0.01 * np.arange(N)
DEGREES = ({"units": "degrees_north"}, {"units": "degrees_east"})
MINUTES = "minutes since 2024-06-01 12:00"

Extra = Callable[[Any], None]


def rain() -> np.ndarray:
    """5 in rows 1..2 and columns 2..3, `(N, N)`."""
    made = np.zeros((N, N))
    made[1:3, 2:4] = 5
    return made


def lay(file: Any, name: str, dims: tuple[str, ...], values: Any, **attributes: Any) -> Any:
    """A variable of a `netCDF4.Dataset`, numbers as they are stored."""
    values = np.asarray(values)
    kind = str if values.dtype.kind == "U" else values.dtype
    fill = attributes.pop("_FillValue", None)
    made = file.createVariable(name, kind, dims, fill_value=fill)
    if kind is not str:
        made.set_auto_maskandscale(False)
    made.setncatts(attributes)
    made[...] = values
    return made


def netcdf(
    path: Path,
    values: Any = None,
    *,
    y: Any = NORTH,
    x: Any = EAST,
    axes: tuple[dict[str, Any], dict[str, Any]] = DEGREES,
    times: Any = (0.0, 5.0),
    clock: dict[str, Any] | None = None,
    mapping: dict[str, Any] | None = None,
    extra: Extra | None = None,
    dims: tuple[str, ...] = ("time", "y", "x"),
    **attributes: Any,
) -> Path:
    """A field `rr` over (time, y, x) of the same numbers at every time.

    Args:
        path: of the new file.
        values: stored numbers (y, x); None: `rain`.
        y: coordinate, north first.
        x: coordinate.
        axes: attributes of y and of x.
        times: numbers or texts; None leaves the variable out.
        clock: attributes of the time; None: minutes since noon of 1 June 2024.
        mapping: attributes of the grid mapping.
        extra: what else to do with the `netCDF4.Dataset`.
        dims: of the field.
        attributes: of the field.
    """
    import netCDF4

    plane = np.asarray(rain().astype("f4") if values is None else values)  # (N, N)
    count = 2 if times is None else len(times)
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in (("time", count), ("y", len(y)), ("x", len(x))):
            file.createDimension(dim, size)
        if times is not None:
            stated = {"units": MINUTES} if clock is None else clock
            lay(file, "time", ("time",), np.array(times), **stated)
        for name, line, facts in (("y", y, axes[0]), ("x", x, axes[1])):
            lay(file, name, (name,), np.asarray(line, "f8"), **facts)
        if mapping is not None:
            lay(file, "crs", (), np.int32(0), **mapping)
            attributes = {"grid_mapping": "crs", **attributes}
        stack = np.broadcast_to(plane, (count, *plane.shape))
        stack = stack.transpose([("time", "y", "x").index(dim) for dim in dims])
        lay(file, "rr", dims, stack, **{"units": "mm/h", **attributes})
        if extra is not None:
            extra(file)
    return path
