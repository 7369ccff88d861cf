"""Files as agencies and users write them, made here; values by hand or by netCDF4-python."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

netCDF4 = pytest.importorskip("netCDF4")
h5py = pytest.importorskip("h5py")
xr = pytest.importorskip("xarray")
pytest.importorskip("pint")

from stpl_core.errors import FrameError, UsageError  # noqa: E402
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, ReadOptions  # noqa: E402
from stpl_core.readers.opening import joined_pieces, open_frames  # noqa: E402
from stpl_core.readers.survey import Surveyor  # noqa: E402

N = 16
NOON = np.datetime64("2024-06-01T12:00", "ns")


def block(value: float = 5.0) -> np.ndarray:
    """Rain in rows 2..4 and columns 6..9 from the north-west."""
    made = np.zeros((N, N), np.float32)
    made[2:5, 6:10] = value
    return made


def field(values: Any, units: str | None = "mm/h", **attributes: Any) -> Any:
    """A dataset (time, lat, lon) of 5 minutes, or a frame (lat, lon)."""
    values = np.asarray(values)
    dims = ("time", "lat", "lon")[-values.ndim :]
    coords = {
        "lat": ("lat", 55 - 0.01 * np.arange(N), {"units": "degrees_north"}),
        "lon": ("lon", 5 + 0.01 * np.arange(N), {"units": "degrees_east"}),
    }
    if values.ndim == 3:
        coords["time"] = ("time", NOON + np.arange(len(values)) * np.timedelta64(300, "s"), {})
    if units is not None:
        attributes["units"] = units
    return xr.Dataset({"rr": (dims, values, attributes)}, coords)


def write(path: Path, dataset: Any) -> Path:
    for variable in dataset.variables.values():
        variable.encoding.setdefault("_FillValue", None)
    dataset.to_netcdf(path)
    return path


def test_default_fills_and_valid_limits_as_netcdf4_python(tmp_path: Path) -> None:
    values = np.stack([block()] * 2)
    values[:, 8], values[:, 9] = 9.969209968386869e36, -999.0
    path = write(tmp_path / "a.nc", field(values, valid_min=np.float32(0)))
    dataset = open_frames(path)
    with netCDF4.Dataset(path) as file:
        theirs = np.ma.filled(file["rr"][:], np.nan)
    np.testing.assert_array_equal(dataset["frames"].values[:, 0], theirs)
    assert np.isnan(theirs).sum() == 2 * 2 * N


def test_impossible_values_are_counted_and_many_are_refused(tmp_path: Path) -> None:
    few = np.stack([block()] * 2)
    few[:, 0, 0], few[:, 0, 1] = np.inf, 1e6
    surveyor = Surveyor()
    for part, files in joined_pieces(write(tmp_path / "few.nc", field(few))):
        surveyor.add(part, files)
    survey = surveyor.survey()
    assert (survey.bad, survey.high) == (4, 5.0)
    many = np.stack([block()] * 2)
    many[:, 8:10] = -999
    path = write(tmp_path / "many.nc", field(many))
    with pytest.raises(
        FrameError, match=r"12\.5% of its pixels from -999 to -999 mm h-1"
    ) as refused:
        open_frames(path)
    share = re.search(r"--bad-pixels ([\d.]+)", refused.value.fix)
    assert share is not None
    options = ReadOptions(bad_pixels=float(share[1]))  # what it says to type works
    dataset = open_frames(path, options=options)
    assert float(dataset["frames"].min()) == 0
    assert (dataset["state"].values == NO_DATA).mean() == 0.125


def test_missing_values_that_are_no_echo(tmp_path: Path) -> None:
    values = np.where(block() > 0, 35, np.nan).astype(np.float32)[None]
    path = write(tmp_path / "a.nc", field(values, "dBZ"))
    assert (open_frames(path)["state"].values == NO_DATA).sum() == N * N - 12
    dataset = open_frames(path, options=ReadOptions(nan="no-echo"))
    assert (dataset["state"].values == NO_ECHO).sum() == N * N - 12
    assert float(dataset["frames"].min()) == -32
    kelvin = write(tmp_path / "k.nc", field(values + 200, "K"))
    with pytest.raises(UsageError, match="--nan no-echo"):
        open_frames(kelvin, options=ReadOptions(nan="no-echo"))


def test_units_that_the_user_states(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nc", field(block()[None], None))
    with pytest.raises(FrameError, match=r"is in unknown; .*--units mm/h"):
        open_frames(path, units="mm h-1")
    dataset = open_frames(path, options=ReadOptions(units="mm/15min"), units="mm h-1")
    assert float(dataset["frames"].max()) == 20
    np.savez(tmp_path / "a.npz", frames=(block(200)[None]).astype(np.uint8), units="0.1 mm/h")
    stated = open_frames(tmp_path / "a.npz", options=ReadOptions(units="0.1 mm/h"))
    assert float(stated["frames"].max()) == pytest.approx(20)


@pytest.mark.parametrize("how", ["bounds", "start", "interval", "mean"])
def test_the_time_over_which_amounts_were_added_up(tmp_path: Path, how: str) -> None:
    made = field(np.stack([block(5 / 12)] * 3), "kg m-2")
    expected: float | None = 300.0
    if how == "bounds":
        edges = NOON + np.arange(-1, 3) * np.timedelta64(300, "s")
        made["time_bnds"] = (("time", "nv"), np.stack([edges[:-1], edges[1:]], -1))
        made["time"].attrs["bounds"] = "time_bnds"
        made["time"].encoding["units"] = "seconds since 2024-06-01"
        made["rr"].attrs["cell_methods"] = "time: sum"
    elif how == "start":
        made = made.isel(time=0).drop_vars("time")
        made = made.assign_coords(valid_time=NOON, start_time=NOON - np.timedelta64(300, "s"))
    elif how == "interval":
        made["rr"].attrs["cell_methods"] = "time: sum (interval: 5 min)"
    else:
        made["rr"].attrs["cell_methods"], expected = "time: mean", None
    dataset = open_frames(write(tmp_path / "a.nc", made))
    assert dataset.attrs.get("accumulation_s") == expected
    if expected is None:
        with pytest.raises(FrameError, match="is in mm"):
            open_frames(tmp_path / "a.nc", units="mm h-1")


@pytest.mark.parametrize("swapped", [False, True])
def test_lead_times_are_times(tmp_path: Path, swapped: bool) -> None:
    """As cfgrib writes a forecast: `time` is its start, `step` the dimension."""
    steps = np.arange(5) * np.timedelta64(1, "h")
    made = field(np.stack([block()] * 5), "kg m**-2").drop_vars("time").rename(time="step")
    made = made.assign_coords(time=NOON, step=steps, valid_time=("step", NOON + steps))
    made = made.swap_dims(step="valid_time") if swapped else made
    dataset = open_frames(write(tmp_path / "a.nc", made))
    assert dataset["frames"].shape == (5, 1, N, N)
    np.testing.assert_array_equal(dataset["time"].values, NOON + steps)


def test_levels_and_members(tmp_path: Path) -> None:
    one = field(np.stack([block()] * 2)).expand_dims({"height": [2.0]}, 1)
    assert open_frames(write(tmp_path / "one.nc", one))["frames"].shape == (2, 1, N, N)
    three = xr.concat([field(np.stack([block(n + 1)] * 2)) for n in range(3)], "number")
    path = write(tmp_path / "three.nc", three.assign_coords(number=[0, 1, 2]))
    with pytest.raises(FrameError, match="--select number=0"):
        open_frames(path)
    chosen = open_frames(path, options=ReadOptions(select=(("number", "2"),)))
    assert float(chosen["frames"].max()) == 3
    with pytest.raises(UsageError, match="--select number=7 is not along number"):
        open_frames(path, options=ReadOptions(select=(("number", "7"),)))


def test_imerg_as_nasa_ships_it(tmp_path: Path) -> None:
    """HDF5 with a group, longitude before latitude, seconds in the Julian calendar."""
    path = tmp_path / "3B-HHR.MS.MRG.3IMERG.20240601-S120000-E122959.0720.V07B.HDF5"
    with netCDF4.Dataset(path, "w") as file:
        group = file.createGroup("Grid")
        for name, size in (("time", 1), ("lon", N), ("lat", N)):
            group.createDimension(name, size)
        clock = group.createVariable("time", "i4", ("time",))
        clock.units, clock.calendar = "seconds since 1980-01-06 00:00:00 UTC", "julian"
        clock[:] = int((datetime(2024, 6, 1, 12) - datetime(1980, 1, 6)).total_seconds())
        for name, units in (("lon", "degrees_east"), ("lat", "degrees_north")):
            line = group.createVariable(name, "f4", (name,))
            line.units, line[:] = units, 40 + 0.1 * np.arange(N)
        for name in ("precipitation", "randomError"):
            rain = group.createVariable(name, "f4", ("time", "lon", "lat"), fill_value=-9999.9)
            rain.units = "mm/hr"
            rain[0] = block()[::-1].T  # north up, row by row: here it is not
    dataset = open_frames(path)
    np.testing.assert_array_equal(dataset["frames"].values[0, 0], block())
    assert dataset["time"].values[0] == NOON
    error = open_frames(path, options=ReadOptions(variable="Grid/randomError"))
    assert error["frames"].attrs["units"] == "mm h-1"


def test_a_time_outside_the_variables(tmp_path: Path) -> None:
    made = field(block())
    named = open_frames(write(tmp_path / "rain_20240601T120000Z.nc", made))
    assert named["time"].values[0] == NOON
    made.attrs["nominal_product_time"] = "2024-06-01T12:00:00Z"  # NWC SAF
    path = write(tmp_path / "rain.nc", made)
    assert open_frames(path)["time"].values[0] == NOON
    del made.attrs["nominal_product_time"]
    write(tmp_path / "none.nc", made)
    with pytest.raises(FrameError, match=r"says no time for rr.*--time-format"):
        open_frames(tmp_path / "none.nc")


@pytest.mark.parametrize("units", ["fortnights since 2024-06-01", "months since 2024-01-01", "x"])
def test_a_time_that_is_not_understood_is_quoted(tmp_path: Path, units: str) -> None:
    made = field(np.stack([block()] * 2)).assign_coords(time=[0.0, 1.0])
    made["time"].attrs["units"] = units
    with pytest.raises(FrameError) as refused:
        open_frames(write(tmp_path / "a.nc", made))
    assert repr(units) in str(refused.value)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_not_observed(tmp_path: Path, mode: str) -> None:
    image = pytest.importorskip("PIL.Image")
    grey = (block(100)).astype(np.uint8)
    opaque = np.full((N, N), 255, np.uint8)
    opaque[:, :3] = 0
    path = tmp_path / "20240601_1200.png"
    if mode == "P":
        picture = image.fromarray(np.where(opaque == 0, 1, 0).astype(np.uint8), "P")
        picture.putpalette([100, 100, 100, 255, 255, 255] + [0] * 750)
        picture.save(path, transparency=1)
    else:
        planes = [grey] * (3 if mode == "RGBA" else 1)
        image.fromarray(np.stack([*planes, opaque], -1), mode).save(path)
    state = open_frames(path)["state"].values[0]
    np.testing.assert_array_equal(state == NO_DATA, opaque == 0)
    assert (state[:, 3:] == VALUE).all()


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [("array", (3, 6, 5, 2), (3, 2, 6, 5)), ("vil", (2, 6, 6, 4), (2, 4, 1, 6, 6))],
)
def test_plain_hdf5_says_what_it_holds_and_how_to_save_it(
    tmp_path: Path, name: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file[name] = np.zeros(shape, np.uint8)
    with pytest.raises(FrameError, match=re.escape(f"{name} {shape}")) as refused:
        open_frames(tmp_path / "plain.h5")
    code = re.fullmatch(r'python -c "(.*)"', refused.value.fix)
    assert code is not None
    subprocess.run([sys.executable, "-c", code[1]], check=True, cwd=tmp_path)  # what it says works
    assert np.load(tmp_path / "plain.npy").shape == expected


def test_arrays_beside_objects_are_read(tmp_path: Path) -> None:
    """MeteoNet's .npz: dates are Python objects, and are left alone."""
    dates = np.array([datetime(2018, 1, 1)] * 3, object)
    np.savez(tmp_path / "a.npz", data=np.zeros((3, 6, 5), np.int16), dates=dates)
    assert open_frames(tmp_path / "a.npz")["frames"].shape == (3, 1, 6, 5)
