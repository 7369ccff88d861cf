"""Formulas, packing and coordinates as services write them; expected: pyproj, netCDF4, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

netCDF4 = pytest.importorskip("netCDF4")
h5py = pytest.importorskip("h5py")
pyproj = pytest.importorskip("pyproj")
pytest.importorskip("xarray")

from stpl_core.errors import FrameError, UsageError  # noqa: E402
from stpl_core.reader import NO_DATA, ReadOptions  # noqa: E402
from stpl_core.readers.converted import quantity_of  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from tests.core.readers.relatives import EAST, NORTH, N, netcdf  # noqa: E402
from tests.core.readers.test_composites import knmi, odim  # noqa: E402

POLAR = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10"


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("geo = 0.5 * pv - 32", 23),
        ("GEO = 0.5 * PV + -32.000000;", 23),
        ("GEO = PV * 0.5 - 32", 23),
        ("GEO=PV-32", 78),
        ("GEO = 0.01 * PV + 0", 1.1),
        ("GEO = - 0.5 * PV + 32", -23),
    ],
)
def test_knmi_formulas(tmp_path: Path, formula: str, value: float) -> None:
    opened = open_frames(knmi(tmp_path / "a_202406011205.h5", formula))
    assert opened["frames"].values[0, 0, 5, 5] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("formula", ["GEO=0,5*PV-32,0", "GEO = PV/2 - 32", "GEO = 0.5 PV"])
def test_knmi_formulas_that_are_quoted(tmp_path: Path, formula: str) -> None:
    with pytest.raises(FrameError) as refused:
        open_frames(knmi(tmp_path / "a_202406011205.h5", formula))
    assert repr(formula) in str(refused.value)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"gain": np.nan}, "gain nan"),
        ({"offset": np.inf}, "offset inf"),
        ({"gain": "0,5"}, "gain '0,5'"),
        ({"gain": np.array([0.5, 0.5])}, r"gain \[0.5, 0.5\]"),
    ],
)
def test_odim_numbers_that_make_no_values(tmp_path: Path, facts: Any, words: str) -> None:
    made = odim(tmp_path / "c.h5", **{"dataset1/data1/what": facts})
    with pytest.raises(FrameError, match=words):
        open_frames(made)


def test_odim_data_with_a_dimension_of_one(tmp_path: Path) -> None:
    made = odim(tmp_path / "c.h5")
    plain = open_frames(made)["frames"].values
    with h5py.File(made, "a") as file:
        stored = file["dataset1/data1/data"][...]
        del file["dataset1/data1/data"]
        file["dataset1/data1/data"] = stored[None]
    np.testing.assert_array_equal(open_frames(made)["frames"].values, plain)


AMOUNT = {"quantity": "ACRR", "gain": 0.1, "offset": 0.0}
LATE = {"startdate": "20240601", "starttime": "233000", "endtime": "003000"}


@pytest.mark.parametrize("end", ["20240602", "20240601"])
def test_odim_amounts_over_midnight(tmp_path: Path, end: str) -> None:
    edges = AMOUNT | LATE | {"enddate": end}
    made = odim(tmp_path / "c.h5", **{"dataset1/data1/what": edges})
    if end > LATE["startdate"]:
        assert quantity_of(open_frames(made)).accumulation_s == 3600
        return
    with pytest.raises(FrameError, match="an amount from 2024-06-01T23:30"):
        open_frames(made)


def test_odim_amounts_of_no_period_take_the_users(tmp_path: Path) -> None:
    made = odim(tmp_path / "c.h5", **{"dataset1/data1/what": AMOUNT})
    with pytest.raises(FrameError, match="--units mm/5min") as refused:
        open_frames(made, units="mm/h")
    assert "--units" in str(refused.value)
    opened = open_frames(made, options=ReadOptions(units="mm/5min"))
    assert opened["frames"].values[0, 0, 5, 5] == pytest.approx(11.0 * 12)
    whole = odim(
        tmp_path / "w.h5", **{"dataset1/data1/what": AMOUNT | LATE | {"enddate": "20240602"}}
    )
    with pytest.raises(UsageError, match="leaves it open"):
        open_frames(whole, options=ReadOptions(units="mm/5min"))


def test_odim_and_netcdf_with_an_earth_in_kilometres(tmp_path: Path) -> None:
    """As radar services write PROJ strings; where pyproj puts the same plane in metres."""
    plane = f"{POLAR} +a=6370.04 +b=6370.04"
    y, x = -4000.0 - np.arange(N), -500.0 + np.arange(N)
    axes = ({"units": "km"}, {"units": "km"})
    for facts in ({"proj4_params": plane}, {"proj4": f"{POLAR} +R=6370040 +units=km"}):
        found = open_frames(netcdf(tmp_path / "a.nc", y=y, x=x, axes=axes, mapping=facts))
        np.testing.assert_allclose(found.affine, [-500500, -3999500, 1000, -1000])
        true = pyproj.Transformer.from_crs(f"{POLAR} +R=6370040", "+proj=longlat +R=6370040")
        ours = pyproj.Transformer.from_crs(
            pyproj.CRS(found["crs"].crs_wkt), pyproj.CRS(found["crs"].crs_wkt).geodetic_crs
        )
        np.testing.assert_allclose(
            ours.transform(-5e5, -4e6)[::-1], true.transform(-5e5, -4e6), atol=1e-9
        )
    plain = open_frames(odim(tmp_path / "m.h5")).affine
    made = odim(tmp_path / "km.h5", where={"projdef": f"{plane} +lat_0=90"})
    np.testing.assert_allclose(open_frames(made).affine, plain, atol=1e-3)


GEOSTATIONARY = {
    "grid_mapping_name": "geostationary",
    "perspective_point_height": 35786023.0,
    "semi_major_axis": 6378137.0,
    "semi_minor_axis": 6356752.31414,
    "longitude_of_projection_origin": -75.0,
    "latitude_of_projection_origin": 0.0,
    "sweep_angle_axis": "x",
}
ANGLES = (0.08 - 56e-6 * np.arange(N), 0.01 + 56e-6 * np.arange(N))
PLACE = [(0.01 - 28e-6) * 35786023, (0.08 + 28e-6) * 35786023, 56e-6 * 35786023, -56e-6 * 35786023]


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("radians", 1),
        ("mrad", 1e3),
        ("microradian", 1e6),
        ("degrees", 180 / np.pi),
        ("arcsec", 180 / np.pi * 3600),
        ("km", 35786.023),
        ("1", 1),
    ],
)
def test_scanning_angles_in_any_unit(tmp_path: Path, unit: str, factor: float) -> None:
    y, x = (line * factor for line in ANGLES)
    axes = ({"units": unit, "axis": "Y"}, {"units": unit, "axis": "X"})
    found = open_frames(netcdf(tmp_path / "a.nc", y=y, x=x, axes=axes, mapping=GEOSTATIONARY))
    np.testing.assert_allclose(found.affine, PLACE, rtol=1e-9)


@pytest.mark.parametrize("text", [False, True])
def test_packed_angles_as_goes_has_them(tmp_path: Path, text: bool) -> None:
    def packed(file: Any) -> None:
        for name, first, step in (("y", 0.08, -56e-6), ("x", 0.01, 56e-6)):
            file[name].set_auto_maskandscale(False)
            file[name][:] = np.arange(N)
            for key, number in (("scale_factor", step), ("add_offset", first)):
                file[name].setncattr(key, str(number) if text else number)

    axes = ({"units": "rad", "axis": "Y"}, {"units": "rad", "axis": "X"})
    height = {"perspective_point_height": "35786023.0"} if text else {}
    mapping = GEOSTATIONARY | height
    found = open_frames(netcdf(tmp_path / "a.nc", axes=axes, mapping=mapping, extra=packed))
    np.testing.assert_allclose(found.affine, PLACE, rtol=1e-9)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"perspective_point_height": 35786.023}, "satellite 35786 m above"),
        ({"perspective_point_height": 42164160.0}, "satellite 4.21642e.07 m above"),
        ({"semi_major_axis": 6378.137, "semi_minor_axis": 6356.75}, "a radius of 6378.14 m"),
    ],
)
def test_lengths_that_are_not_in_metres(tmp_path: Path, facts: Any, words: str) -> None:
    axes = ({"units": "rad"}, {"units": "rad"})
    y, x = ANGLES
    made = netcdf(tmp_path / "a.nc", y=y, x=x, axes=axes, mapping=GEOSTATIONARY | facts)
    with pytest.raises(FrameError, match=words):
        open_frames(made)


@pytest.mark.parametrize(
    ("y", "x", "units", "left_top"),
    [
        (NORTH, EAST, ("degrees_north", "degrees_west"), (-5.075, 55.005)),
        (NORTH, EAST, ("degrees_south", "degrees_east"), (4.995, -54.925)),
        (NORTH[::-1], EAST[::-1], ("degree_N", "degree_E"), (4.995, 55.005)),
        (NORTH, 536 + EAST - 5, ("degrees_north", "degrees_east"), (175.995, 55.005)),
        (NORTH, (359.97 + EAST - 5) % 360, ("degrees_north", "degrees_east"), (-0.035, 55.005)),
        (np.radians(NORTH), np.radians(EAST), ("radian", "radian"), (4.995, 55.005)),
    ],
)
@pytest.mark.parametrize("everywhere", [False, True])
def test_latitudes_and_longitudes_as_they_are_counted(
    tmp_path: Path, y: Any, x: Any, units: Any, left_top: Any, everywhere: bool
) -> None:
    """Lines, and a latitude and longitude of every pixel."""
    facts = [
        {"units": unit, "standard_name": name}
        for unit, name in zip(units, ("latitude", "longitude"), strict=True)
    ]

    def planes(file: Any) -> None:
        for name, plane, about in zip(
            ("lat", "lon"), np.meshgrid(y, x, indexing="ij"), facts, strict=True
        ):
            made = file.createVariable(name, "f8", ("y", "x"))
            made.setncatts(about)
            made[:] = plane

    where = tmp_path / "a.nc"
    made = (
        netcdf(where, y=np.arange(N), x=np.arange(N), axes=({}, {}), extra=planes)
        if everywhere
        else netcdf(where, y=y, x=x, axes=(facts[0], facts[1]))
    )
    np.testing.assert_allclose(open_frames(made).affine[:2], left_top, atol=1e-6)


STORED = np.arange(N * N, dtype="i2").reshape(N, N)


@pytest.mark.parametrize(
    "attributes",
    [
        {"scale_factor": 0.1, "valid_range": np.array([3, 40], "i4")},
        {"scale_factor": np.array([0.1]), "_FillValue": np.int16(5), "missing_value": np.int16(7)},
        {"scale_factor": np.float32(0.01), "add_offset": 1.5, "valid_min": np.int16(4)},
        {"missing_value": np.array([1, 9], "i2")},
    ],
)
def test_packed_values_as_netcdf4_python(tmp_path: Path, attributes: Any) -> None:
    made = netcdf(tmp_path / "a.nc", STORED, **attributes)
    opened = open_frames(made)
    with netCDF4.Dataset(made) as file:
        theirs = np.ma.filled(file["rr"][:].astype("f8"), np.nan)
    np.testing.assert_allclose(opened["frames"].values[:, 0], theirs, rtol=1e-6)
    np.testing.assert_array_equal(opened["state"].values == NO_DATA, np.isnan(theirs))


@pytest.mark.parametrize(
    "factor",
    [np.nan, 0.0, np.array([0.1, 0.2]), "0,1", "0.1"],
    ids=["nan", "0", "2", "0,1", "text"],
)
def test_factors_of_packing(tmp_path: Path, factor: Any) -> None:
    made = netcdf(tmp_path / "a.nc", STORED, scale_factor=factor)
    if isinstance(factor, str) and factor == "0.1":
        frames = open_frames(made)["frames"].values
        np.testing.assert_allclose(frames[0, 0], STORED * 0.1, rtol=1e-6)
        return
    with pytest.raises(FrameError, match="rr has scale_factor"):
        open_frames(made)
