"""Layouts of satellites and models: packed angles, angles to the west, places of every pixel."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("netCDF4", "pyproj", "xarray"):  # an edge device has none of them
    pytest.importorskip(library)


from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pyproj

from stpl_core.reader import Piece, ReadOptions
from stpl_core.readers import cf

H, W = 6, 9
FIELD = np.arange(H * W, dtype=np.float32).reshape(H, W)
HEIGHT_M = 35786023.0
GOES = {
    "grid_mapping_name": "geostationary",
    "perspective_point_height": HEIGHT_M,
    "semi_major_axis": 6378137.0,
    "semi_minor_axis": 6356752.31414,
    "inverse_flattening": 298.2572221,
    "latitude_of_projection_origin": 0.0,
    "longitude_of_projection_origin": -75.0,
    "sweep_angle_axis": "x",
}
STEP, WEST, NORTH = 5.6e-5, -0.01, 0.06
"""Radians."""


class Writer:
    """A file of one field at one time."""

    def __init__(self, path: Path, dims: tuple[str, str] = ("y", "x")) -> None:
        self.path, self.dims = path, dims
        self.file = netCDF4.Dataset(path, "w")
        for dim, size in zip(dims, (H, W), strict=True):
            self.file.createDimension(dim, size)

    def variable(
        self, name: str, values: Any, dims: tuple[str, ...], dtype: str = "f8", **attributes: Any
    ) -> None:
        made = self.file.createVariable(name, dtype, dims)
        made.setncatts(attributes)  # before the values, which are packed by them
        made[...] = values

    def read(self, field: np.ndarray = FIELD, **attributes: Any) -> Piece:
        attributes = {"units": "K", **attributes}
        self.variable("time", 0.0, (), units="seconds since 2024-06-01", standard_name="time")
        self.variable("CMI", field, self.dims, "f4", **attributes)
        self.file.close()
        (piece,) = cf.read(self.path, ReadOptions(variable="CMI"))
        return piece


def places(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    crs = pyproj.CRS(piece.grid.crs_wkt)
    onto = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    return onto.transform(*np.meshgrid(piece.grid.x, piece.grid.y))


def seen_from_space(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude, by the formulas of NOAA's product guide (volume 3, 5.1.2.8)."""
    x, y = np.meshgrid(x, y)
    equator, pole = GOES["semi_major_axis"], GOES["semi_minor_axis"]
    away = HEIGHT_M + equator
    a = np.sin(x) ** 2 + np.cos(x) ** 2 * (np.cos(y) ** 2 + (equator / pole) ** 2 * np.sin(y) ** 2)
    b = -2 * away * np.cos(x) * np.cos(y)
    r = (-b - np.sqrt(b**2 - 4 * a * (away**2 - equator**2))) / (2 * a)
    sx, sy, sz = r * np.cos(x) * np.cos(y), -r * np.sin(x), r * np.cos(x) * np.sin(y)
    lat = np.arctan((equator / pole) ** 2 * sz / np.hypot(away - sx, sy))
    return -75.0 - np.degrees(np.arctan(sy / (away - sx))), np.degrees(lat)


def test_goes_angles_are_packed_and_times_the_height(tmp_path: Path) -> None:
    """The layout of the Advanced Baseline Imager; the place by NOAA's own formulas."""
    writer = Writer(tmp_path / "goes.nc")
    x, y = WEST + STEP * np.arange(W), NORTH - STEP * np.arange(H)
    for name, values, step in (("x", x, STEP), ("y", y, -STEP)):
        writer.variable(
            name, values, (name,), "i2", scale_factor=step, add_offset=values[0], units="rad",
            axis=name.upper(), standard_name=f"projection_{name}_coordinate",
        )  # fmt: skip
    writer.variable("goes_imager_projection", 0, (), "i4", **GOES)
    piece = writer.read(grid_mapping="goes_imager_projection")
    for ours, theirs in zip(places(piece), seen_from_space(x, y), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_array_equal(piece.frames[0, 0], FIELD)


@pytest.mark.parametrize(
    ("unit", "scale"), [("microradian", 1e6), ("mrad", 1e3), ("degrees", 180 / np.pi), ("", 1.0)]
)
def test_angles_in_other_units(tmp_path: Path, unit: str, scale: float) -> None:
    """Such as those of Himawari; none at all is taken for radians, since metres they cannot be."""
    writer = Writer(tmp_path / "himawari.nc")
    x, y = WEST + STEP * np.arange(W), NORTH - STEP * np.arange(H)
    for name, values in (("x", x), ("y", y)):
        attributes = {"units": unit} if unit else {}
        writer.variable(
            name,
            values * scale,
            (name,),
            standard_name=f"projection_{name}_coordinate",
            **attributes,
        )
    writer.variable("fixedgrid_projection", 0, (), "i4", **GOES)
    piece = writer.read(grid_mapping="fixedgrid_projection")
    for ours, theirs in zip(places(piece), seen_from_space(x, y), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_azimuths_of_meteosat_count_to_the_west(tmp_path: Path) -> None:
    """The imager of the third generation: columns from the west, azimuths from high to low, rows
    from the south."""
    writer = Writer(tmp_path / "fci.nc")
    x, y = WEST + STEP * np.arange(W), NORTH - STEP * np.arange(H)
    writer.variable(
        "x", -x, ("x",), units="radian", axis="X", long_name="azimuth angle encoded as column",
        standard_name="projection_x_coordinate",
    )  # fmt: skip
    writer.variable(
        "y", y[::-1], ("y",), units="radian", axis="Y", long_name="zenith angle encoded as row",
        standard_name="projection_y_coordinate",
    )  # fmt: skip
    writer.variable("mtg_geos_projection", 0, (), "i4", **GOES)
    piece = writer.read(FIELD[::-1], grid_mapping="mtg_geos_projection")
    for ours, theirs in zip(places(piece), seen_from_space(x, y), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_array_equal(piece.frames[0, 0], FIELD)


LON, LAT = 5 + 0.01 * np.arange(W), 55 - 0.01 * np.arange(H)


@pytest.mark.parametrize("rising", [False, True], ids=["rows fall", "rows rise"])
@pytest.mark.parametrize("named", [False, True], ids=["no coordinates", "coordinates"])
def test_latitude_and_longitude_of_every_pixel(tmp_path: Path, rising: bool, named: bool) -> None:
    writer = Writer(tmp_path / "curvilinear.nc")
    lon, lat = np.meshgrid(LON, LAT)
    order = np.s_[::-1] if rising else np.s_[:]
    writer.variable("latitude", lat[order], ("y", "x"), "f4", units="degrees_north")
    writer.variable("longitude", lon[order], ("y", "x"), "f4", units="degrees_east")
    attributes = {"coordinates": "latitude longitude"} if named else {}
    piece = writer.read(FIELD[order], **attributes)
    np.testing.assert_array_equal(piece.frames[0, 0], FIELD)
    assert piece.grid.geographic
    for ours, theirs in zip(places(piece), (lon, lat), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("mapped", [True, False], ids=["with the projection", "without"])
def test_places_on_a_projection(tmp_path: Path, mapped: bool) -> None:
    """Of a model on a Lambert grid that writes no x and y; rows from the south."""
    writer = Writer(tmp_path / "model.nc", ("south_north", "west_east"))
    crs = pyproj.CRS("+proj=lcc +lat_1=30 +lat_2=60 +lat_0=50 +lon_0=10 +R=6370000")
    onto = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    x, y = np.meshgrid(-3e5 + 3000.0 * np.arange(W), 2e5 - 3000.0 * np.arange(H))
    lon, lat = onto.transform(x, y)
    for name, values in (("XLAT", lat), ("XLONG", lon)):
        writer.variable(name, values[::-1], writer.dims, "f4")
    attributes = {}
    if mapped:
        made = {key: value for key, value in crs.to_cf().items() if key != "crs_wkt"}
        writer.variable("lambert", 0, (), "i4", **made)
        attributes = {"grid_mapping": "lambert"}
    piece = writer.read(FIELD[::-1], **attributes)
    np.testing.assert_array_equal(piece.frames[0, 0], FIELD)
    assert bool(piece.grid.crs_wkt) == mapped
    if mapped:
        for ours, theirs in zip(places(piece), (lon, lat), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("lons", "west"),
    [
        (LON + 355, 0.0),
        (np.where(LON + 354.97 >= 360, LON - 5.03, LON + 354.97), -0.03),
        (np.where(LON + 174.97 > 180, LON - 185.03, LON + 174.97), 179.97),
        (LON[::-1] + 355, 0.0),
        (LON - 365, 0.0),
    ],
    ids=["beyond 360", "over the meridian", "over the date line", "from the east", "below -180"],
)
def test_longitudes_begin_where_they_do_on_a_map(
    tmp_path: Path, lons: np.ndarray, west: float
) -> None:
    writer = Writer(tmp_path / "lons.nc", ("lat", "lon"))
    writer.variable("lat", LAT, ("lat",), units="degrees_north", standard_name="latitude")
    writer.variable("lon", lons, ("lon",), units="degrees_east", standard_name="longitude")
    backwards = lons is not None and lons[1] < lons[0] and lons[0] - lons[1] < 1
    piece = writer.read(FIELD[:, ::-1] if backwards else FIELD)
    assert piece.grid.x[0] == pytest.approx(west, abs=1e-9)
    np.testing.assert_allclose(np.diff(piece.grid.x), 0.01)
    np.testing.assert_array_equal(piece.frames[0, 0], FIELD)


@pytest.mark.parametrize("rising", [True, False])
def test_a_disk_without_places_off_the_earth_stands_north_up(tmp_path: Path, rising: bool) -> None:
    size = 9
    lat, lon = np.meshgrid(np.linspace(60, -60, size), np.linspace(-50, 60, size), indexing="ij")
    lon = lon + lat / 10
    off = np.hypot(*np.mgrid[-4:5, -4:5]) > 4.2
    values = np.arange(size * size, dtype=np.float32).reshape(size, size)
    order = np.s_[::-1] if rising else np.s_[:]
    with netCDF4.Dataset(tmp_path / "disk_202406011200.nc", "w") as file:
        for name in ("y", "x"):
            file.createDimension(name, size)
        for name, plane, unit in (("lat", lat, "degrees_north"), ("lon", lon, "degrees_east")):
            made = file.createVariable(name, "f4", ("y", "x"), fill_value=-999.0)
            made.units = unit
            made[:] = np.ma.masked_array(plane, off)[order]
        field = file.createVariable("field", "f4", ("y", "x"))
        field.units = "K"
        field[:] = values[order] + 200
    (piece,) = cf.read(tmp_path / "disk_202406011200.nc", ReadOptions())
    np.testing.assert_array_equal(piece.frames[0, 0], values + 200)
