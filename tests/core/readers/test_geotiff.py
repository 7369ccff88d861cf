"""GeoTIFF as people write it: what has no data is what GDAL says has none."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("rasterio", "xarray"):  # an edge device has none of them
    pytest.importorskip(library)


from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine

from stpl_core.errors import FrameError
from stpl_core.reader import NO_DATA, ReadOptions
from stpl_core.readers import geotiff
from stpl_core.readers.opening import open_frames

H, W = 8, 10
RAIN = np.linspace(0, 20, H * W, dtype=np.float32).reshape(H, W)
PLACE = Affine(1000, 0, 300_000, 0, -1000, 5_000_000)


def tiff(path: Path, bands: np.ndarray, **how: Any) -> Path:
    """A file of `(C, H, W)`; `mask`, `tags`, `descriptions` and rasterio's own words."""
    mask, tags, texts = (how.pop(key, None) for key in ("mask", "tags", "descriptions"))
    profile = {
        "driver": "GTiff",
        "height": H,
        "width": W,
        "count": len(bands),
        "dtype": bands.dtype,
        "crs": "EPSG:25832",
        "transform": PLACE,
        **how,
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        file.units = ("mm/h",) * len(bands)
        if mask is not None:
            file.write_mask(mask)
        if tags:
            file.update_tags(**tags)
        if texts:
            file.descriptions = texts
    return path


def unseen(path: Path) -> np.ndarray:
    """By GDAL."""
    with rasterio.open(path) as file:
        return np.asarray(file.dataset_mask() == 0)


@pytest.mark.parametrize(
    ("stored", "nodata"),
    [
        (-3.4028234663852886e38, -3.4e38),
        (-9999.0, -9999.0),
        (1e20, 1.00000002e20),
        (-32768.0, -32768.0),
    ],
)
def test_no_data_that_differs_in_the_last_digits(
    tmp_path: Path, stored: float, nodata: float
) -> None:
    rain = RAIN.copy()
    rain[:, :3] = stored
    rain[5, 5] = np.nan
    path = tiff(tmp_path / "rain_202406011200.tif", rain[None], nodata=nodata)
    (piece,) = geotiff.read(path, ReadOptions())
    expected = unseen(path) | np.isnan(rain)
    assert expected.sum() == 3 * H + 1
    np.testing.assert_array_equal(piece.state[0] == NO_DATA, expected)
    np.testing.assert_array_equal(np.isnan(piece.frames[0, 0]), expected)


def test_colours_and_opacity_are_three_channels_and_a_mask(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (4, H, W)).astype(np.uint8)
    picture[3] = np.where(random.random((H, W)) < 0.4, 0, 255)
    path = tiff(tmp_path / "view_202406011200.tif", picture, photometric="RGB", alpha="YES")
    (piece,) = geotiff.read(path, ReadOptions())
    assert piece.frames.shape == (1, 3, H, W)
    np.testing.assert_array_equal(piece.state[0] == NO_DATA, unseen(path))
    np.testing.assert_array_equal(piece.frames[0][:, ~unseen(path)], picture[:3][:, ~unseen(path)])


def test_a_mask_in_a_file_beside(tmp_path: Path) -> None:
    path = tmp_path / "rain_202406011200.tif"
    seen = np.ones((H, W), bool)
    seen[:, :3] = False
    tiff(path, RAIN[None])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(seen)
    assert (tmp_path / "rain_202406011200.tif.msk").is_file()
    np.testing.assert_array_equal(unseen(path), ~seen)
    np.testing.assert_array_equal(open_frames(path)["state"].values[0] == NO_DATA, ~seen)
    np.testing.assert_array_equal(open_frames(tmp_path)["state"].values[0] == NO_DATA, ~seen)


def test_one_colour_may_be_the_number_for_no_data(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 2, (3, H, W)).astype(np.uint8)
    path = tiff(tmp_path / "view_202406011200.tif", picture, photometric="RGB", nodata=0)
    (piece,) = geotiff.read(path, ReadOptions())
    np.testing.assert_array_equal(piece.state[0] == NO_DATA, unseen(path))
    assert unseen(path).any()
    assert ((picture == 0).any(axis=0) & ~unseen(path)).any()


def test_bands_of_which_each_has_its_time_are_frames(tmp_path: Path) -> None:
    bands = np.stack([RAIN + n for n in range(4)])
    times = tuple(f"2024-06-01T12:{5 * n:02}:00Z" for n in (2, 0, 1, 3))
    opened = open_frames(tiff(tmp_path / "day_202406011200.tif", bands, descriptions=times))
    assert opened["frames"].shape == (4, 1, H, W)
    assert [str(time)[11:16] for time in opened["time"].values] == [
        "12:00",
        "12:05",
        "12:10",
        "12:15",
    ]
    np.testing.assert_array_equal(opened["frames"].values[:, 0], bands[[1, 2, 0, 3]])


def test_bands_of_other_names_stay_channels(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a_202406011200.tif", np.stack([RAIN, RAIN]), descriptions=("ir", "wv"))
    assert open_frames(path).attrs["channels"].split("\n") == ["ir", "wv"]


def test_a_nowcast_of_ours_is_read_back_as_frames(tmp_path: Path) -> None:
    """What the tag says, where the descriptions are the user's."""
    path = tiff(tmp_path / "nowcast.tif", np.stack([RAIN, RAIN + 1]))
    with rasterio.open(path, "r+") as file:
        for band in (1, 2):
            file.update_tags(band, valid_time=f"2024-06-01T12:0{5 * (band - 1)}:00Z")
    assert open_frames(path)["frames"].shape == (2, 1, H, W)


@pytest.mark.parametrize(
    "place", [Affine.rotation(30) @ Affine.scale(1000, -1000), Affine(0, 1000, 3e5, -1000, 0, 5e6)]
)
def test_a_rotated_file_is_refused_with_what_straightens_it(tmp_path: Path, place: Affine) -> None:
    path = tiff(tmp_path / "rain_202406011200.tif", RAIN[None], transform=place)
    with pytest.raises(FrameError, match=r"gdalwarp rain_202406011200\.tif straight\.tif"):
        open_frames(path)


def test_control_points_are_no_grid(tmp_path: Path) -> None:
    from rasterio.control import GroundControlPoint as Point

    points = [
        Point(0, 0, 5, 55),
        Point(0, W, 6, 55.2),
        Point(H, 0, 4.8, 54),
        Point(H, W, 5.8, 54.1),
    ]
    path = tmp_path / "rain_202406011200.tif"
    tiff(path, RAIN[None], crs="EPSG:4326", transform=None, gcps=points)
    with pytest.raises(FrameError, match="control points"):
        open_frames(path)


def test_longitudes_beyond_180_are_wrapped(tmp_path: Path) -> None:
    place = Affine(0.5, 0, 355, 0, -0.5, 55)
    path = tiff(tmp_path / "rain_202406011200.tif", RAIN[None], crs="EPSG:4326", transform=place)
    assert open_frames(path).attrs["affine"].tolist() == [-5.0, 55.0, 0.5, -0.5]


def test_web_mercator_names_no_other_file(tmp_path: Path) -> None:
    """GDAL writes `+nadgrids=@null` into its WKT."""
    from stpl_core.readers.projections import crs_of

    with rasterio.open(tiff(tmp_path / "a_202406011200.tif", RAIN[None], crs="EPSG:3857")) as file:
        assert "nadgrids=@null" in file.crs.to_wkt()
        assert crs_of(file.crs.to_wkt(), "a").to_epsg() == 3857
    for bad in ("@null,other.gsb", "other.gsb", "@other.gsb"):
        with pytest.raises(FrameError, match="names other files"):
            crs_of(f"+proj=merc +nadgrids={bad} +type=crs", "a")


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("TIFFTAG_DATETIME", "2024:06:01 12:05:00"),
        ("valid_time", "2024-06-01T12:05:00.000Z"),
        ("TIME", "2024-06-01 12:05"),
        ("acquisition_datetime", "2024-06-01T12:05:00+00:00"),
    ],
)
def test_the_time_stands_in_a_tag(tmp_path: Path, tag: str, text: str) -> None:
    path = tiff(tmp_path / "rain.tif", RAIN[None], tags={tag: text})
    assert str(open_frames(path)["time"].values[0])[:19] == "2024-06-01T12:05:00"


def test_a_time_of_another_zone_is_not_taken_for_utc(tmp_path: Path) -> None:
    path = tiff(tmp_path / "rain.tif", RAIN[None], tags={"time": "2024-06-01T12:05:00+02:00"})
    with pytest.raises(FrameError, match="no time"):
        open_frames(path)


@pytest.mark.parametrize(
    ("unit", "description", "name", "factor"),
    [
        ("mm/5min", None, "mm h-1", 12.0),
        ("kg m-2 s-1", "precipitation flux", "mm h-1", 3600.0),
        ("0.1 mm/h", None, "mm h-1", 0.1),
        ("kg m-2", "rain", "mm", 1.0),
        ("m", "elevation", "m", 1.0),
        ("mm", "soil moisture", "mm", 1.0),
    ],
)
def test_the_unit_of_a_band(
    tmp_path: Path, unit: str, description: str | None, name: str, factor: float
) -> None:
    path = tiff(tmp_path / "rain_202406011200.tif", RAIN[None] / 3600)
    with rasterio.open(path, "r+") as file:
        file.units = (unit,)
        if description:
            file.descriptions = (description,)
    (piece,) = geotiff.read(path, ReadOptions())
    assert piece.quantity.units == name
    np.testing.assert_allclose(piece.frames[0, 0], RAIN / 3600 * factor, rtol=1e-6)
    assert (piece.quantity.no_echo == 0.0) == (description not in ("elevation", "soil moisture"))
    stated = open_frames(path, options=ReadOptions(units="mm/10min"))
    np.testing.assert_allclose(stated["frames"].values[0, 0], RAIN / 600, rtol=1e-6)


def test_the_stated_unit_holds_for_every_band(tmp_path: Path) -> None:
    path = tiff(tmp_path / "rain_202406011200.tif", np.stack([RAIN, RAIN]))
    opened = open_frames(path, options=ReadOptions(units="mm/5min"))
    assert opened["frames"].attrs["units"] == "mm h-1"
    np.testing.assert_allclose(opened["frames"].values[0, 1], RAIN * 12, rtol=1e-6)
