"""The xarray.Dataset that every reader ends in.

    frames    (time, channel, y, x) float32   physical values; NaN where there is no data, and the
                                              attribute `no_echo_value` where there is no echo
    state     (time, y, x) uint8              0 value, 1 no echo, 2 no data (CF flags)
    time      (time) datetime64[ns]           UTC; counted from 1970 on where the data has no times
    channel   (channel) int32                 their names stand in the attribute `channels`
    y, x      float64                         cell centres; y falls and x rises where the grid is
                                              on the Earth (row 0 is the north); metres, degrees,
                                              or scanning angles of a geostationary satellite
    sequence  (time) int32                    frames of two sequences never belong to one window
    source    (time) int32                    line number in the attribute `files`
    split     (time) int8                     only where a split was published: 0 train, 1
                                              validation, 2 test, of a window that starts here
    crs       ()                              CF grid mapping with `crs_wkt` (where the coordinates
                                              are angles: `crs_wkt_in_metres`), where there is one

`frames` has the attributes units (CF), long_name, standard_name, grid_mapping, ancillary_variables,
no_echo_value. The dataset has cadence_s, time_is ("observed" or "counted"), channels, files (one a
line), affine (left, top, pixel width, pixel height), and what the source states: zr_a, zr_b,
accumulation_s, institution, licence, attribution, split_rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Times
from stpl_core.readers.join import Joined
from stpl_core.readers.libraries import reads_with
from stpl_core.readers.licences import spdx_of

if TYPE_CHECKING:
    import xarray as xr

CONVENTIONS = "CF-1.11"
"""Unsigned bytes and 64-bit integers came with 1.9."""
METRES_WKT = "crs_wkt_in_metres"
"""Attribute with the WKT of a grid mapping whose coordinates are angles."""
SPLITS = ("train", "validation", "test")
TIME_UNITS = "microseconds since 1970-01-01T00:00:00"
"""How files store time: exact for every source, and `int64` so that appending never rounds."""


def cadence_of(time: Times, sequence: NDArray[np.int32]) -> float | None:
    """The usual step in seconds between frames of one sequence; None where there is no step."""
    steps = np.diff(time.astype("datetime64[ns]").astype(np.int64))[np.diff(sequence) == 0]
    return float(np.median(steps)) / 1e9 if len(steps) else None


def dataset_from_joined(parts: list[Joined], files: Sequence[str]) -> xr.Dataset:
    """Put pieces into one dataset, in the order of time.

    Each piece is dropped from `parts` as it is copied, so that memory holds the frames about once.
    """
    with reads_with("frames"):
        import xarray as xr
    first = parts[0].piece
    time = np.concatenate([part.time for part in parts])  # (T,)
    columns = {
        "sequence": np.concatenate([part.sequence for part in parts]),
        "source": np.concatenate([part.file for part in parts]),
    }
    if first.split is not None:
        lengths = [len(part.time) for part in parts]
        columns["split"] = np.repeat(
            np.array([part.piece.split or 0 for part in parts], np.int8), lengths
        )
    order = np.argsort(time, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    frames = np.empty((len(time), *first.frames.shape[1:]), np.float32)  # (T, C, H, W)
    state = np.empty((len(time), *first.state.shape[1:]), np.uint8)  # (T, H, W)
    start = 0
    parts.reverse()
    while parts:
        piece = parts.pop().piece
        rows = place[start : start + len(piece.frames)]
        frames[rows], state[rows] = piece.frames, piece.state
        start += len(piece.frames)
    coordinates: dict[str, Any] = grid_coordinates(first.grid)
    coordinates["time"] = ("time", time[order], {"standard_name": "time", "axis": "T"})
    coordinates["channel"] = ("channel", np.arange(frames.shape[1], dtype=np.int32))
    for name, values in columns.items():
        coordinates[name] = ("time", values[order], _column_attributes(name))
    return xr.Dataset(
        {
            "frames": (("time", "channel", "y", "x"), frames, frame_attributes(first)),
            "state": (("time", "y", "x"), state, state_attributes(first)),
        },
        coords=coordinates,
        attrs=dataset_attributes(first, files, cadence_of(time[order], columns["sequence"][order])),
    )


def grid_coordinates(grid: Grid) -> dict[str, Any]:
    """`y`, `x` and, where the grid is on the Earth, `crs`."""
    if not grid.crs_wkt:
        return _axes(grid, ("long_name", "row", "column"), ("1", "1"))
    known, height_m = _mapping(grid.crs_wkt)
    mapping = {"long_name": "coordinate reference system", **known}
    if height_m is not None:
        # CF wants the angles of the scan, which no WKT has; GDAL makes metres of them where there
        # is none, and would take them for metres where there is one.
        mapping[METRES_WKT] = mapping.pop("crs_wkt")
        called = ("projection_y_angular_coordinate", "projection_x_angular_coordinate")
        found = _axes(grid, ("standard_name", *called), ("rad", "rad"), 1.0 / height_m)
        return {**found, "crs": ((), np.int32(0), mapping)}
    if grid.geographic and known.get("grid_mapping_name") == "rotated_latitude_longitude":
        called, units = ("grid_latitude", "grid_longitude"), ("degrees", "degrees")
        places = true_places(grid)
    elif grid.geographic:
        called, units, places = ("latitude", "longitude"), ("degrees_north", "degrees_east"), {}
    else:
        called, units = ("projection_y_coordinate", "projection_x_coordinate"), ("m", "m")
        places = {}
    left, top, width, height = grid.affine
    mapping["spatial_ref"] = grid.crs_wkt
    mapping["GeoTransform"] = f"{left!r} {width!r} 0 {top!r} 0 {height!r}"
    found = _axes(grid, ("standard_name", *called), units)
    return {**found, **places, "crs": ((), np.int32(0), mapping)}


def true_places(grid: Grid) -> dict[str, Any]:
    """Coordinates `lat` and `lon` of every pixel, `(H, W)`, of a grid of a projection."""
    from pyproj import Transformer

    from stpl_core.readers.projections import crs_of

    crs = crs_of(grid.crs_wkt, "")
    onto = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    lon, lat = onto.transform(*np.meshgrid(grid.x, grid.y))
    return {
        name: (("y", "x"), values, {"standard_name": standard, "units": f"degrees_{way}"})
        for name, values, standard, way in (
            ("lat", lat, "latitude", "north"),
            ("lon", lon, "longitude", "east"),
        )
    }


@lru_cache(maxsize=64)
def _mapping(wkt: str) -> tuple[dict[str, Any], float | None]:
    """CF attributes, and the height of a geostationary satellite."""
    from stpl_core.readers.cf_mapping import cf_grid_mapping, geostationary_height
    from stpl_core.readers.projections import crs_of

    crs = crs_of(wkt, "")
    return cf_grid_mapping(crs), geostationary_height(crs)


def _axes(
    grid: Grid, names: tuple[str, str, str], units: tuple[str, str], scale: float = 1.0
) -> dict[str, Any]:
    """`y` and `x`; the first of `names` is the attribute that the others are written to."""
    key, *called = names
    return {
        dim: (dim, values * scale, {key: name, "units": unit, "axis": dim.upper()})
        for dim, values, name, unit in zip(("y", "x"), (grid.y, grid.x), called, units, strict=True)
    }


def frame_attributes(piece: Piece) -> dict[str, Any]:
    """Attributes of `frames`."""
    quantity = piece.quantity
    attributes: dict[str, Any] = {
        "long_name": quantity.name,
        "units": quantity.units,
        "ancillary_variables": "state",
    }
    if quantity.standard_name:
        attributes["standard_name"] = quantity.standard_name
    if quantity.no_echo is not None:
        attributes["no_echo_value"] = quantity.no_echo
    if piece.grid.crs_wkt:
        attributes["grid_mapping"] = "crs"
    return attributes


def state_attributes(piece: Piece) -> dict[str, Any]:
    """Attributes of `state`."""
    return {
        "standard_name": "status_flag",
        "long_name": "state of the pixel",
        **({"grid_mapping": "crs"} if piece.grid.crs_wkt else {}),
        "flag_values": np.array([VALUE, NO_ECHO, NO_DATA], np.uint8),
        "flag_meanings": "value no_echo no_data",
    }


def _column_attributes(name: str) -> dict[str, Any]:
    if name == "split":
        return {
            "flag_values": np.arange(len(SPLITS), dtype=np.int8),
            "flag_meanings": " ".join(SPLITS),
        }
    words = {"sequence": "number of the sequence", "source": "line of the attribute files"}
    return {"long_name": words[name]}


def dataset_attributes(
    piece: Piece, files: Sequence[str], cadence_s: float | None
) -> dict[str, Any]:
    """Attributes of the dataset."""
    quantity = piece.quantity
    cadence_s = cadence_s if cadence_s is not None else piece.cadence_s
    attributes: dict[str, Any] = {
        "Conventions": CONVENTIONS,
        "stpl_frames": 1,
        "time_is": "counted" if piece.time is None else "observed",
        "channels": "\n".join(quantity.channels),
        "files": "\n".join(files),
        "affine": np.array(piece.grid.affine),
    }
    optional = {
        "cadence_s": cadence_s,
        "accumulation_s": quantity.accumulation_s,
        "zr_a": quantity.zr and quantity.zr[0],
        "zr_b": quantity.zr and quantity.zr[1],
        **piece.notes,
    }
    attributes.update((key, value) for key, value in optional.items() if value is not None)
    spdx = spdx_of(piece.notes.get("licence", ""))
    if spdx:
        attributes["license"] = spdx
    return attributes
