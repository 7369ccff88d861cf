"""Radar composites whose corners say that rows or columns run the other way."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("h5py", "pyproj", "xarray"):  # an edge device has none of them
    pytest.importorskip(library)


from pathlib import Path

import h5py
import numpy as np
import pyproj

from stpl_core.reader import ReadOptions
from stpl_core.readers import odim

H, W = 5, 7
STORED = np.arange(H * W, dtype=np.uint8).reshape(H, W) + 10
POLAR = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +a=6370040 +b=6370040 +units=m"
DEGREES = "+proj=longlat +ellps=WGS84"
POLAR_KM = POLAR.replace("+units=m", "+units=km")


def composite(
    path: Path, projection: str, left: float, top: float, step: tuple[float, float], names: str
) -> tuple[np.ndarray, np.ndarray]:
    """Write one; returns longitude and latitude of every stored pixel's middle."""
    crs = pyproj.CRS(projection)
    back = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    right, bottom = left + W * step[0], top + H * step[1]
    edges = {"UL": (left, top), "UR": (right, top), "LL": (left, bottom), "LR": (right, bottom)}
    with h5py.File(path, "w") as file:
        what = file.create_group("what")
        what.attrs.update(object="COMP", date="20240601", time="120000", version="H5rad 2.3")
        where = file.create_group("where")
        where.attrs["projdef"] = projection
        for name in names.split():
            lon, lat = back.transform(*edges[name])
            where.attrs[f"{name}_lon"], where.attrs[f"{name}_lat"] = lon, lat
        data = file.create_group("dataset1").create_group("data1")
        data.create_group("what").attrs.update(
            quantity="DBZH", gain=1.0, offset=0.0, nodata=255.0, undetect=0.0
        )
        data["data"] = STORED
    x = left + step[0] * (np.arange(W) + 0.5)
    y = top + step[1] * (np.arange(H) + 0.5)
    return back.transform(*np.meshgrid(x, y))


@pytest.mark.parametrize("names", ["LL LR UL UR", "LL UR"])
@pytest.mark.parametrize("right", [1, -1], ids=["from the west", "from the east"])
@pytest.mark.parametrize("down", [-1, 1], ids=["from the north", "from the south"])
@pytest.mark.parametrize(
    ("projection", "place", "step"),
    [(POLAR, (-1e5, -4e6), 1000.0), (POLAR_KM, (-1e2, -4e3), 1.0), (DEGREES, (5.0, 55.0), 0.01)],
    ids=["metres", "kilometres", "degrees"],
)
def test_every_pixel_stays_at_its_place(
    tmp_path: Path,
    projection: str,
    place: tuple[float, float],
    step: float,
    down: int,
    right: int,
    names: str,
) -> None:
    if "longlat" in projection and right < 0:
        pytest.skip("longitudes that fall are those beyond the date line")
    path = tmp_path / "comp_202406011200.h5"
    lon, lat = composite(path, projection, *place, (right * step, down * step), names)
    (piece,) = odim.read(path, ReadOptions())
    grid = piece.grid
    assert grid.affine[2] > 0 > grid.affine[3]
    crs = pyproj.CRS(grid.crs_wkt)
    onto = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    x, y = onto.transform(lon, lat)
    columns = np.round((x - grid.affine[0]) / grid.affine[2] - 0.5).astype(int)
    rows = np.round((y - grid.affine[1]) / grid.affine[3] - 0.5).astype(int)
    np.testing.assert_array_equal(piece.frames[0, 0][rows, columns], STORED)
    np.testing.assert_allclose((x - grid.affine[0]) / grid.affine[2] - 0.5, columns, atol=1e-3)


def test_over_the_date_line(tmp_path: Path) -> None:
    path = tmp_path / "comp_202406011200.h5"
    composite(path, DEGREES, 179.97, -17.0, (0.01, -0.01), "LL LR UL UR")
    with h5py.File(path, "a") as file:
        for name in ("LR", "UR"):
            file["where"].attrs[f"{name}_lon"] = -179.96
    (piece,) = odim.read(path, ReadOptions())
    assert piece.grid.affine == pytest.approx((179.97, -17.0, 0.01, -0.01))
