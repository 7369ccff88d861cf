"""Generated NetCDF and ODIM files: our values are those of netCDF4-python, cftime and h5py."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

netCDF4 = pytest.importorskip("netCDF4")
h5py = pytest.importorskip("h5py")
pytest.importorskip("xarray")
pytest.importorskip("pint")

from stpl_core.reader import NO_DATA, NO_ECHO, Piece, ReadOptions  # noqa: E402
from stpl_core.readers.opening import read_pieces  # noqa: E402
from stpl_core.readers.registry import Choice, load_reader  # noqa: E402
from tests.core.readers.soaks import calm, soak  # noqa: E402
from tests.core.readers.test_composites import odim  # noqa: E402

Draw = Any
HEIGHT, WIDTH = 3, 4
TLL = ["time", "lat", "lon"]
UNITS = [("W m-2", 1.0, "W m-2"), ("mm/h", 1.0, "mm h-1"), ("mm/5min", 12.0, "mm h-1")]
UNITS += [("kg m-2 h-1", 1.0, "mm h-1"), ("0.1 mm/h", 0.1, "mm h-1")]
DEFAULT_FILLS = {"i2": -32767, "i4": -2147483647, "f4": 9.969209968386869e36}


@st.composite
def stored(draw: Draw) -> dict[str, Any]:
    """A variable as somebody may have written it."""
    kind = draw(st.sampled_from(["i1", "u1", "i2", "u2", "i4", "f4", "f8"]))
    units = draw(st.sampled_from(UNITS))
    attributes: dict[str, Any] = {"units": units[0]}
    dtype = np.dtype(kind)
    few = st.integers(0, 9)  # rain is never below zero, and the numbers meet the limits often
    if dtype.kind == "i" and draw(st.booleans()):
        attributes["_Unsigned"] = "true"
    if draw(st.booleans()):
        attributes["scale_factor"] = draw(st.sampled_from([0.5, 0.1, np.float32(0.02)]))
        attributes["add_offset"] = draw(st.sampled_from([0.0, 2.5, np.float32(1.25)]))
    if draw(st.booleans()):
        one = dtype.type(draw(few))
        attributes["missing_value"] = draw(st.sampled_from([one, np.array([one, 9], dtype)]))
    written = draw(st.sampled_from([dtype, np.dtype("i4")])) if dtype.kind in "iu" else dtype
    limits = draw(st.sampled_from(["", "min", "max", "both", "range"]))
    if limits in ("min", "both"):
        attributes["valid_min"] = written.type(draw(st.integers(0, 3)))
    if limits in ("max", "both"):
        attributes["valid_max"] = written.type(draw(st.integers(5, 9)))
    if limits == "range":
        attributes["valid_range"] = np.array([draw(st.integers(0, 3)), 8], dtype)
    # netCDF4-python fails on unsigned bytes without a fill value of their own.
    fill = draw(few if "_Unsigned" in attributes else st.one_of(st.none(), few))
    count = draw(st.integers(1, 3))
    seed = draw(st.integers(0, 10**6))
    numbers = np.random.default_rng(seed).integers(0, 10, (count, HEIGHT, WIDTH))
    values = numbers.astype(dtype)
    plain = fill is None and "_Unsigned" not in attributes
    if plain and kind in DEFAULT_FILLS and draw(st.booleans()):
        values[0, 0, 0] = DEFAULT_FILLS[kind]
    if dtype.kind == "f" and draw(st.booleans()):
        values[-1, 1, 1] = np.nan
    return {
        "values": values,
        "attributes": attributes,
        "fill": None if fill is None else dtype.type(fill),
        "factor": units[1],
        "unit": units[2],
        "order": draw(st.permutations(["time", "lat", "lon"])),
        "ones": draw(st.sampled_from([(), (), ("level",), ("member", "height")])),
        "scalar_time": count == 1 and draw(st.booleans()),
        "time_kind": draw(st.sampled_from(["f8", "i4", "i8", "f4"])),
        "first_lon": draw(st.sampled_from([40.0, 358.0, -2.0, 178.0, 718.0])),
        "packed_axes": draw(st.booleans()),
        "endian": draw(st.sampled_from(["native", "big", "little"])),
        "format": draw(st.sampled_from(["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET"]))
        if kind[0] != "u"
        else "NETCDF4",
        "south_up": draw(st.booleans()),
        "east_first": draw(st.booleans()),
        "calendar": draw(
            st.sampled_from(
                [
                    "standard",
                    "gregorian",
                    "proleptic_gregorian",
                    "noleap",
                    "366_day",
                    "julian",
                    "360_day",
                ]
            )
        ),
        "time_units": draw(
            st.sampled_from(
                [
                    "seconds since 2024-03-01 12:00:00",
                    "minutes since 2024-03-01T12:00:00Z",
                    "hours since 2024-03-01 12:00:00 +02:00",
                    "days since 2024-03-01",
                    "Hours since 2024-03-01T12:00:00.000-05:30",
                    "sec since 2024-3-1 1:02:03 UTC",
                    "milliseconds since 2024-03-01",
                    "hours since 1900-01-01 00:00:0.0",
                ]
            )
        ),
    }


def write(path: Path, made: dict[str, Any]) -> None:
    sizes = dict(zip(("time", "lat", "lon"), made["values"].shape, strict=True))
    with netCDF4.Dataset(path, "w", format=made["format"]) as file:
        for name, size in {**sizes, **dict.fromkeys(made["ones"], 1)}.items():
            file.createDimension(name, size)
        write_axes(file, made)
        file_format_is_new = made["format"] == "NETCDF4"
        order = [*made["order"], *made["ones"]]
        values = made["values"].transpose([TLL.index(name) for name in made["order"]])
        if made["scalar_time"]:
            values = values.squeeze(order.index("time"))
            order.remove("time")
        field = file.createVariable(
            "field",
            made["values"].dtype,
            order,
            fill_value=made["fill"],
            **({"endian": made["endian"]} if file_format_is_new else {}),
        )
        field.set_auto_maskandscale(False)
        field[:] = values[(..., *[None] * len(made["ones"]))]
        for key, value in made["attributes"].items():
            field.setncattr(key, value)


def write_axes(file: Any, made: dict[str, Any]) -> None:
    lat = np.arange(HEIGHT) if made["south_up"] else np.arange(HEIGHT)[::-1]
    lon = np.arange(WIDTH)[::-1] if made["east_first"] else np.arange(WIDTH)
    lines = {"lat": lat + 40.0, "lon": made["first_lon"] + lon}
    if made["first_lon"] in (178.0, 358.0):  # as many write them: 358, 359, 0, 1; 178, 179, -180
        beyond = lines["lon"] >= made["first_lon"] + 2
        lines["lon"] = np.where(beyond, lines["lon"] - 360, lines["lon"])
    for name, unit in (("lat", "degrees_north"), ("lon", "degrees_east")):
        axis = file.createVariable(name, "i2" if made["packed_axes"] else "f8", (name,))
        axis.units = unit
        if made["packed_axes"]:
            axis.setncatts({"scale_factor": 0.5, "add_offset": 10.0})
        axis[:] = lines[name]
    size = made["values"].shape[0]
    kind = made["time_kind"] if made["format"] == "NETCDF4" else made["time_kind"].replace("8", "4")
    clock = file.createVariable("time", kind, () if made["scalar_time"] else ("time",))
    clock.units, clock.calendar = made["time_units"], made["calendar"]
    numbers = np.arange(size) * (60_000 if "milli" in made["time_units"] else 3)
    clock[:] = numbers[0] if made["scalar_time"] else numbers


def theirs(path: Path, made: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Values (time, lat, lon) from north-west, NaN where masked, and the names of the times."""
    with netCDF4.Dataset(path) as file:
        field = file["field"][(..., *[0] * len(made["ones"]))]
        if made["scalar_time"]:
            field = field[None]
            left = [name for name in made["order"] if name != "time"]
            field = field.transpose([0, *[1 + left.index(name) for name in ("lat", "lon")]])
        else:
            field = field.transpose([made["order"].index(name) for name in TLL])
        values = np.ma.filled(np.ma.asarray(field, np.float64), np.nan)
        values = values[:, :: -1 if made["south_up"] else 1, :: -1 if made["east_first"] else 1]
        clock = file["time"]
        dates = netCDF4.num2date(
            clock[:], clock.units, clock.calendar, only_use_cftime_datetimes=True
        )
        times = [f"{date.strftime('%Y-%m-%dT%H:%M:%S')}" for date in np.ravel(dates)]
    return values * made["factor"], np.array(times, "datetime64[ns]")


def pieces(path: Path, word: str) -> list[Piece]:
    return list(read_pieces(Choice(word, load_reader(word), [path]), path, ReadOptions()))


def check(made: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # netCDF4's, of attributes it cannot cast
        path = Path(folder) / "any.nc"
        write(path, made)
        expected, times = theirs(path, made)
        (piece,) = pieces(path, "netcdf")
        found, state = piece.frames[:, 0], piece.state
        np.testing.assert_allclose(found, expected.astype(np.float32), rtol=1e-6)
        np.testing.assert_array_equal(state == NO_DATA, np.isnan(expected))
        np.testing.assert_array_equal(piece.time, times)
        assert piece.quantity.units == made["unit"]
        west = (made["first_lon"] - 0.5 + 180) % 360 - 180
        assert piece.grid.affine == pytest.approx((west, 39.5 + HEIGHT, 1.0, -1.0))
        if made["unit"] == "mm h-1":
            np.testing.assert_array_equal(state == NO_ECHO, found == 0)


@st.composite
def composite(draw: Draw) -> dict[str, float]:
    return {
        "gain": draw(st.sampled_from([1.0, 0.5, 0.25, 5e-1])),
        "offset": draw(st.sampled_from([0.0, -32.0, -32.5, -9.75])),
        "nodata": float(draw(st.sampled_from([0, 110, 254, 255]))),
        "undetect": float(draw(st.sampled_from([0, 1, 255]))),
    }


def check_odim(what: dict[str, float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = odim(Path(folder) / "any.h5", **{"dataset1/data1/what": what})
        with h5py.File(path) as file:
            stored = file["dataset1/data1/data"][:].astype(np.float64)
        expected = stored * what["gain"] + what["offset"]
        expected[stored == what["undetect"]] = -32.0
        expected[stored == what["nodata"]] = np.nan
        impossible = (expected > 100.0) & np.isfinite(expected)
        greatest = (stored == 255) & (stored != what["nodata"])  # the usual number for no data
        unclear = what["nodata"] == what["undetect"] and greatest.any()
        if impossible.mean() > 0.01 or unclear:
            return  # test_checked and test_composites look at these
        (piece,) = pieces(path, "odim")
        np.testing.assert_allclose(piece.frames[0, 0], expected, rtol=1e-6)
        state = piece.state[0]
        np.testing.assert_array_equal(state == NO_DATA, np.isnan(expected))
        nothing = (stored == what["undetect"]) & (stored != what["nodata"])
        np.testing.assert_array_equal(state == NO_ECHO, nothing)


@settings(calm, max_examples=350)
@given(stored())
def test_any_netcdf(made: dict[str, Any]) -> None:
    check(made)


@settings(calm, max_examples=200)
@given(composite())
def test_any_composite(what: dict[str, float]) -> None:
    check_odim(what)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
@settings(soak)
@given(stored())
def test_many_netcdf(made: dict[str, Any]) -> None:
    check(made)
