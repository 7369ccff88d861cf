"""Radar composites: values, masks and corners as pysteps, rasterio and h5py read them."""

from __future__ import annotations

import gzip
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

xr = pytest.importorskip("xarray")
h5py = pytest.importorskip("h5py")
pyproj = pytest.importorskip("pyproj")

from stpl_core.errors import FrameError  # noqa: E402
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, ReadOptions  # noqa: E402
from stpl_core.readers.converted import grid_of  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402

RADAR = Path(__file__).parents[3].parent / "shared" / "data" / "radar"
ODYSSEY = RADAR / "opera_odyssey_hdf5"
CIRRUS = RADAR / "opera_cirrus_hdf5"
KNMI = RADAR / "knmi_hdf5" / "201008"
FMI = RADAR / "fmi_pgm" / "20160928"
TIFF = RADAR / "fmi_geotiff"

needs_files = pytest.mark.skipif(not RADAR.is_dir(), reason="no radar files in ../shared/data")

Import = Callable[..., tuple[Any, Any, dict[str, Any]]]


@pytest.fixture(scope="module")
def importers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pysteps warns of optional libraries it does not find
        return pytest.importorskip("pysteps.io.importers")


def masked(found: Any) -> np.ndarray:
    """What pysteps gives, NaN where masked."""
    return np.ma.filled(np.ma.masked_invalid(found), np.nan).astype(np.float64)


def corners_match(dataset: Any, metadata: dict[str, Any], scale: float = 1.0) -> None:
    """Corners equal to a hundredth of a pixel."""
    grid = grid_of(dataset)
    theirs = np.array([metadata[key] for key in ("x1", "y1", "x2", "y2")]) * scale
    pixel = abs(grid.affine[2])
    np.testing.assert_allclose(grid.corners, theirs, rtol=0, atol=0.01 * pixel)


def lon_lat(definition: str, x: float, y: float) -> tuple[float, float]:
    lon, lat = pyproj.Proj(definition)(x, y, inverse=True)
    return float(lon), float(lat)


def same_place(dataset: Any, definition: str, scale: float = 1.0) -> None:
    """A pixel's longitude and latitude by our WKT and by the file's own projection agree."""
    crs = pyproj.CRS.from_wkt(dataset["crs"].attrs["crs_wkt"])
    x, y = float(dataset["x"][100]), float(dataset["y"][200])
    ours = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    np.testing.assert_allclose(ours, lon_lat(definition, x / scale, y / scale), rtol=0, atol=1e-6)


@needs_files
def test_odim_quantity_at_dataset_level_as_pysteps(importers: Any) -> None:
    dataset = open_frames(ODYSSEY)
    assert dataset["frames"].shape == (4, 1, 2200, 1900)
    assert dataset.attrs["cadence_s"] == 900
    assert dataset["frames"].attrs["units"] == "mm h-1"
    assert str(dataset["time"].values[0]) == "2018-08-24T18:00:00.000000000"
    first = sorted(ODYSSEY.rglob("*.hdf"))[0]
    theirs, _, metadata = importers.import_odim_hdf5(str(first), qty="RATE")
    expected = masked(theirs)
    np.testing.assert_array_equal(dataset["frames"].values[0, 0], expected.astype(np.float32))
    np.testing.assert_array_equal(dataset["state"].values[0] == NO_DATA, np.isnan(expected))
    corners_match(dataset, metadata)
    same_place(dataset, metadata["projection"])


@needs_files
def test_odim_three_states_are_those_of_the_file() -> None:
    first = sorted(ODYSSEY.rglob("*.hdf"))[0]
    dataset = open_frames(first)
    with h5py.File(first) as file:
        stored = file["dataset1/data1/data"][...]
    state = dataset["state"].values[0]
    np.testing.assert_array_equal(state == NO_DATA, stored == -9999000)
    np.testing.assert_array_equal(state == NO_ECHO, stored == -8888000)
    assert 0.1 < (state == VALUE).mean() < 0.2


@needs_files
def test_odim_quantity_at_data_level_as_pysteps(importers: Any) -> None:
    path = next(CIRRUS.rglob("*.hdf"))
    dataset = open_frames(path)
    theirs, _, metadata = importers.import_odim_hdf5(str(path), qty="DBZH")
    expected, state = masked(theirs), dataset["state"].values[0]
    assert dataset["frames"].attrs["units"] == "dBZ"
    ours = dataset["frames"].values[0, 0]
    valued = state == VALUE
    np.testing.assert_array_equal(ours[valued], expected[valued].astype(np.float32))
    np.testing.assert_array_equal(state == NO_DATA, np.isnan(expected))
    assert (expected[state == NO_ECHO] == -30).all()  # pysteps' own stand-in for no echo
    assert (ours[state == NO_ECHO] == -32).all()
    corners_match(dataset, metadata)


@needs_files
def test_odim_says_which_quantities_there_are() -> None:
    first = sorted(ODYSSEY.rglob("*.hdf"))[0]
    with pytest.raises(FrameError, match=r"holds the quantities RATE, QIND; expected DBZH"):
        open_frames(first, options=ReadOptions(variable="DBZH"))


def write_odim(path: Path, *, as_text: bool, level: str) -> None:
    """A small composite; attributes as str or bytes, alone or in arrays of one."""

    def word(text: str) -> Any:
        return text if as_text else np.array([text.encode()])

    what = {"gain": 0.5, "offset": -32.0, "nodata": 255.0, "undetect": 0.0}
    with h5py.File(path, "w") as file:
        file.attrs["Conventions"] = word("ODIM_H5/V2_3")
        file.create_group("what").attrs.update(
            {"object": word("COMP"), "date": word("20240101"), "time": word("001500")}
        )
        file.create_group("where").attrs.update(
            {
                "projdef": word("+proj=laea +lat_0=55 +lon_0=10 +ellps=WGS84 +units=m"),
                "LL_lon": 9.9, "LL_lat": 54.9, "UR_lon": 10.1, "UR_lat": 55.1,
            }
        )  # fmt: skip
        group = file.create_group("dataset1/data1")
        group["data"] = np.array([[0, 64, 255], [100, 2, 0]], np.uint8)
        holder = file[level].create_group("what")
        holder.attrs["quantity"] = word("DBZH")
        for key, value in what.items():
            holder.attrs[key] = value if as_text else np.array([value])


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("level", ["dataset1", "dataset1/data1"])
def test_odim_attributes_in_every_shape(tmp_path: Path, as_text: bool, level: str) -> None:
    write_odim(tmp_path / "a.h5", as_text=as_text, level=level)
    dataset = open_frames(tmp_path / "a.h5")
    np.testing.assert_array_equal(
        dataset["frames"].values[0, 0], [[-32, 0, np.nan], [18, -31, -32]]
    )
    np.testing.assert_array_equal(dataset["state"].values[0], [[1, 0, 2], [0, 0, 1]])
    assert str(dataset["time"].values[0]).startswith("2024-01-01T00:15:00")


@needs_files
def test_knmi_as_pysteps(importers: Any) -> None:
    dataset = open_frames(KNMI)
    assert dataset["frames"].shape == (92, 1, 765, 700)
    assert dataset.attrs["accumulation_s"] == dataset.attrs["cadence_s"] == 300
    assert dataset["frames"].attrs["units"] == "mm"
    for n in (0, 91):
        path = sorted(KNMI.iterdir())[n]
        theirs, _, metadata = importers.import_knmi_hdf5(str(path), qty="ACRR", accutime=5.0)
        expected = masked(theirs)
        np.testing.assert_allclose(
            dataset["frames"].values[n, 0], expected.astype(np.float32), rtol=1e-6
        )
        np.testing.assert_array_equal(dataset["state"].values[n] == NO_DATA, np.isnan(expected))
    corners_match(dataset, metadata, scale=1000.0)  # pysteps leaves them in km
    same_place(dataset, metadata["projection"], scale=1000.0)
    assert str(dataset["time"].values[-1]).startswith("2010-08-26T07:35:00")


@needs_files
def test_fmi_pgm_as_pysteps(importers: Any) -> None:
    dataset = open_frames(FMI)
    assert dataset["frames"].shape == (40, 1, 1226, 760)
    assert dataset.attrs["cadence_s"] == 300
    assert (dataset.attrs["zr_a"], dataset.attrs["zr_b"]) == (223.0, 1.53)
    for n in (0, 39):
        path = sorted(FMI.iterdir())[n]
        theirs, _, metadata = importers.import_fmi_pgm(str(path), gzipped=True)
        expected, state = masked(theirs), dataset["state"].values[n]
        np.testing.assert_array_equal(dataset["frames"].values[n, 0], expected.astype(np.float32))
        np.testing.assert_array_equal(state == NO_DATA, np.isnan(expected))
        np.testing.assert_array_equal(state == NO_ECHO, expected == -32)
    corners_match(dataset, metadata)
    same_place(dataset, metadata["projection"])
    assert str(dataset["time"].values[0]).startswith("2016-09-28T14:45:00")


@needs_files
def test_fmi_pgm_plain_and_gzipped_are_the_same(tmp_path: Path) -> None:
    path = sorted(FMI.iterdir())[0]
    plain = tmp_path / path.name.removesuffix(".gz")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    xr.testing.assert_equal(open_frames(plain), open_frames(path))
    xr.testing.assert_equal(open_frames(tmp_path), open_frames(path))  # no folder of pictures


@needs_files
def test_geotiff_as_rasterio_with_the_tags_of_fmi() -> None:
    rasterio = pytest.importorskip("rasterio")
    dataset = open_frames(TIFF)
    with rasterio.open(next(TIFF.rglob("*.tif"))) as file:
        window = rasterio.windows.Window(1500, 3000, 1000, 800)
        stored = file.read(1, window=window)
        bounds, crs = file.bounds, file.crs
    ours = dataset["frames"].values[0, 0, 3000:3800, 1500:2500]
    state = dataset["state"].values[0, 3000:3800, 1500:2500]
    expected = np.where(stored == 255, np.nan, stored / 2.0 - 32.0)
    np.testing.assert_array_equal(ours, expected.astype(np.float32))
    np.testing.assert_array_equal(state == NO_DATA, stored == 255)
    np.testing.assert_array_equal(state == NO_ECHO, stored == 0)
    assert {0, 1, 2} == set(np.unique(state).tolist())
    np.testing.assert_allclose(
        grid_of(dataset).corners, (bounds.left, bounds.bottom, bounds.right, bounds.top), rtol=1e-12
    )
    assert rasterio.crs.CRS.from_wkt(dataset["crs"].attrs["crs_wkt"]) == crs
    assert dataset["frames"].attrs["units"] == "dBZ"
    assert str(dataset["time"].values[0]).startswith("2016-09-28T14:45:00")


def test_geotiff_with_gdals_own_scale_and_nodata(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    stored = np.array([[[0, 10], [20, 99]], [[1, 2], [3, 99]]], np.uint8)  # (bands, H, W)
    profile = {
        "driver": "GTiff", "count": 2, "height": 2, "width": 2, "dtype": "uint8", "nodata": 99,
        "crs": "EPSG:3067", "transform": rasterio.Affine(250, 0, 1000, 0, -250, 9000),
    }  # fmt: skip
    path = tmp_path / "rain_202401011230.tif"
    with rasterio.open(path, "w", **profile) as file:
        file.write(stored)
        file.scales, file.offsets = (0.1, 0.1), (1.0, 1.0)
        file.units = ("mm/h", "mm/h")
    dataset = open_frames(path)
    expected = np.where(stored == 99, np.nan, stored * 0.1 + 1.0)
    np.testing.assert_allclose(dataset["frames"].values[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(dataset["state"].values[0], [[0, 0], [0, 2]])
    assert dataset["frames"].attrs["units"] == "mm h-1"
    assert grid_of(dataset).corners == (1000, 8500, 1500, 9000)
    assert str(dataset["time"].values[0]).startswith("2024-01-01T12:30:00")


@needs_files
def test_files_out_of_order_are_read_in_time_order(tmp_path: Path) -> None:
    """Names that sort backwards: the times in the files count."""
    files = sorted(KNMI.iterdir())[:4]
    for n, file in enumerate(reversed(files)):
        shutil.copy(file, tmp_path / f"frame{n}.h5")
    dataset = open_frames(tmp_path)
    assert (np.diff(dataset["time"].values) == np.timedelta64(5, "m")).all()
    one_by_one = [open_frames(file)["frames"].values for file in files]
    np.testing.assert_array_equal(dataset["frames"].values, np.concatenate(one_by_one))
    assert dataset["source"].values.tolist() == [3, 2, 1, 0]


@needs_files
def test_values_and_corners_from_the_bytes_themselves() -> None:
    """The same as above without pysteps: raw numbers, and the corners it gives, written down."""
    from PIL import Image

    knmi, fmi = (sorted(folder.iterdir())[7] for folder in (KNMI, FMI))
    with h5py.File(knmi) as file:
        stored = file["image1/image_data"][...]
    dataset = open_frames(knmi)
    expected = np.where(stored == 65535, np.nan, stored / 100)
    np.testing.assert_allclose(dataset["frames"].values[0, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(dataset["state"].values[0] == NO_DATA, stored == 65535)
    assert grid_of(dataset).corners == (0, -4_415_000, 700_000, -3_650_000)
    with gzip.open(fmi) as file, Image.open(file) as image:
        stored = np.asarray(image)
    dataset = open_frames(fmi)
    expected = np.where(stored == 255, np.nan, stored / 2 - 32)
    np.testing.assert_array_equal(dataset["frames"].values[0, 0], expected.astype(np.float32))
    corners = (0.0049823, 0.0097320, 759752.2852757, 1225544.6588913)
    np.testing.assert_allclose(grid_of(dataset).corners, corners, rtol=0, atol=1e-3)
    dataset = open_frames(sorted(ODYSSEY.rglob("*.hdf"))[0])
    np.testing.assert_allclose(
        grid_of(dataset).corners, (0, -4_400_000, 3_800_000, 0), rtol=0, atol=0.01
    )
