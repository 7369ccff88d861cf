"""Generated ODIM composites: values as h5py and the formula give them, places by pyproj."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("h5py", "pyproj", "xarray", "netCDF4", "rasterio"):  # an edge device has none
    pytest.importorskip(library)


import tempfile
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_core.reader import NO_DATA, NO_ECHO, ReadOptions
from stpl_core.readers import odim
from tests.core.readers.maps import MAPS, Map
from tests.core.readers.placed_files import lon_lat, to_lon_lat
from tests.core.readers.soaks import calm, soak

FIVE_MINUTES = np.timedelta64(5, "m")
NOON = np.datetime64("2024-06-01T12:00", "ns")
QUANTITIES = {
    "DBZH": ("dBZ", -32.0, [(0.5, -32.0), (0.5, -32.5), (0.25, -10.0)]),
    "TH": ("dBZ", -32.0, [(0.4, -30.0)]),
    "RATE": ("mm h-1", 0.0, [(0.1, 0.0), (1.0, 0.0), (0.5, 0.5)]),
    "ACRR": ("mm", 0.0, [(0.01, 0.0), (1.0, 0.0)]),
}
"""Unit, what stands for no echo, and gains with offsets."""
PLACES = [name for name in MAPS if name != "rotated pole"]
LEVELS = ["", "dataset{n}/", "dataset{n}/data1/"]
flags = st.booleans()


@st.composite
def composites(draw: st.DrawFn) -> dict[str, Any]:
    """A composite as somebody may have written it."""
    quantity = draw(st.sampled_from(list(QUANTITIES)))
    dtype = draw(st.sampled_from(["u1", "u2", "i2", "i4", "f4", "f8", ">u2", ">f4"]))
    marks = [0.0, 1.0, 50.0, 201.0, 255.0]
    nodata = draw(st.sampled_from([*marks, np.nan] if "f" in dtype else marks))
    name = draw(st.sampled_from(PLACES))
    return {
        "quantity": quantity,
        "scaling": draw(st.sampled_from(QUANTITIES[quantity][2])),
        "dtype": dtype,
        "nodata": nodata,
        "undetect": draw(st.sampled_from([mark for mark in marks if mark != nodata])),
        "count": draw(st.integers(1, 3)),
        "shape": (draw(st.integers(2, 9)), draw(st.integers(2, 9))),
        "map": name,
        "south_up": draw(flags),
        "east_first": draw(flags) and not MAPS[name].degrees,
        "corners": draw(st.sampled_from(["LL UR", "LL LR UL UR"])),
        "scales": draw(flags),
        "level": draw(st.sampled_from(LEVELS)),
        "zr_level": draw(st.sampled_from([None, *LEVELS])),
        "bytes": draw(flags),
        "arrays": draw(flags),
        "short_clock": draw(flags),
        "packed": draw(flags),
        "seed": draw(st.integers(0, 999)),
    }


def write(path: Path, facts: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns longitude and latitude of each stored pixel."""
    height, width = facts["shape"]
    place: Map = MAPS[facts["map"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a PROJ text has less than WKT
        projection = place.crs.to_proj4()
    step = 0.01 if place.degrees else 1000.0 / place.crs.axis_info[0].unit_conversion_factor
    step_x = step * (-1 if facts["east_first"] else 1)
    step_y = step * (1 if facts["south_up"] else -1)
    left, top = place.middle()
    x = left + step_x * (np.arange(width) + 0.5)
    y = top + step_y * (np.arange(height) + 0.5)
    where = {"projdef": projection, "xsize": width, "ysize": height}
    if facts["scales"]:
        where.update(xscale=step, yscale=step)
    edges = {"L": top + height * step_y, "U": top}, {"L": left, "R": left + width * step_x}
    for corner in facts["corners"].split():
        there = to_lon_lat(projection, edges[1][corner[1]], edges[0][corner[0]])
        where[f"{corner}_lon"], where[f"{corner}_lat"] = there
    with h5py.File(path, "w") as file:
        put(file, "what", facts, object="COMP", **clock("", NOON, facts))
        put(file, "where", facts, **where)
        for n in range(facts["count"]):
            write_dataset(file, n, facts)
    return to_lon_lat(projection, *np.meshgrid(x, y))


def write_dataset(file: Any, n: int, facts: dict[str, Any]) -> None:
    start = NOON + n * FIVE_MINUTES
    end = start + FIVE_MINUTES if facts["quantity"] == "ACRR" else start
    dataset = f"dataset{n + 1}"
    put(file, f"{dataset}/what", facts, **clock("start", start, facts), **clock("end", end, facts))
    gain, offset = facts["scaling"]
    levels = {
        "quantity": facts["quantity"],
        "gain": gain,
        "offset": offset,
        "nodata": facts["nodata"],
        "undetect": facts["undetect"],
    }
    put(file, facts["level"].format(n=n + 1) + "what", facts, **levels)
    if facts["zr_level"] is not None:
        put(file, facts["zr_level"].format(n=n + 1) + "how", facts, zr_a=316.0, zr_b=1.5)
    stored = np.random.default_rng(facts["seed"] + n).integers(0, 200, facts["shape"])
    stored = stored.astype(facts["dtype"])
    stored[0, 0], stored[-1, -1] = facts["nodata"], facts["undetect"]
    if stored.dtype.kind == "f":
        stored[0, 1] = np.nan
    how = {"compression": "gzip", "chunks": True} if facts["packed"] else {}
    file.require_group(f"{dataset}/data1").create_dataset("data", data=stored, **how)


def clock(edge: str, time: np.datetime64, facts: dict[str, Any]) -> dict[str, str]:
    date, _, moment = str(time.astype("M8[s]")).partition("T")
    digits = moment.replace(":", "")
    return {
        f"{edge}date": date.replace("-", ""),
        f"{edge}time": digits[:4] if facts["short_clock"] else digits,
    }


def put(file: Any, group: str, facts: dict[str, Any], **attributes: Any) -> None:
    for key, value in attributes.items():
        if isinstance(value, str):
            value = np.bytes_(value) if facts["bytes"] else value
        elif facts["arrays"]:
            value = np.array([value])
        file.require_group(group).attrs[key] = value


def check(facts: dict[str, Any]) -> None:
    unit, nothing, _ = QUANTITIES[facts["quantity"]]
    count, (gain, offset) = facts["count"], facts["scaling"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "comp.h5"
        lon, lat = write(path, facts)
        with h5py.File(path) as file:
            stored = np.stack([file[f"dataset{n + 1}/data1/data"][:] for n in range(count)])
        (piece,) = odim.read(path, ReadOptions())
    gone = np.isnan(stored) | (stored == facts["nodata"])
    undetected = (stored == facts["undetect"]) & ~gone
    expected = np.where(undetected, nothing, stored.astype(np.float64) * gain + offset)
    expected[gone] = np.nan
    order = np.s_[..., :: -1 if facts["south_up"] else 1, :: -1 if facts["east_first"] else 1]
    np.testing.assert_allclose(piece.frames[:, 0], expected[order], rtol=1e-6)
    np.testing.assert_array_equal(piece.state == NO_DATA, gone[order])
    np.testing.assert_array_equal(piece.state == NO_ECHO, undetected[order])
    late = facts["quantity"] == "ACRR"
    assert piece.time is not None
    np.testing.assert_array_equal(piece.time, NOON + FIVE_MINUTES * (np.arange(count) + late))
    assert piece.quantity.units == unit
    assert piece.quantity.accumulation_s == (300.0 if late else None)
    assert piece.quantity.zr == (None if facts["zr_level"] is None else (316.0, 1.5))
    assert piece.grid.affine[2] > 0 > piece.grid.affine[3]
    for ours, theirs in zip(lon_lat(piece.grid), (lon, lat), strict=True):
        np.testing.assert_allclose(ours, theirs[order], atol=1e-6)


@settings(calm, max_examples=300)
@given(composites())
def test_any_composite_is_read_as_h5py_reads_it(facts: dict[str, Any]) -> None:
    check(facts)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
@settings(soak)
@given(composites())
def test_many_composites(facts: dict[str, Any]) -> None:
    check(facts)
