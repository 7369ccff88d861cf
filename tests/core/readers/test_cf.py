"""NetCDF and Zarr: other people's conventions, and our own there and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

xr = pytest.importorskip("xarray")
pytest.importorskip("netCDF4")
pytest.importorskip("zarr")
pyproj = pytest.importorskip("pyproj")

from stpl_core.errors import FrameError, UsageError  # noqa: E402
from stpl_core.reader import ReadOptions  # noqa: E402
from stpl_core.readers.converted import grid_of  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from stpl_core.readers.store import convert  # noqa: E402

DATA = Path(__file__).parents[3].parent / "shared" / "data"
KNMI = DATA / "radar" / "knmi_hdf5" / "201008"
LAEA = "+proj=laea +lat_0=55 +lon_0=10 +ellps=WGS84 +units=m +type=crs"
TIMES = np.datetime64("2024-01-01T00:00", "ns") + np.arange(6) * np.timedelta64(5, "m")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def mlcast_like(rng: np.random.Generator) -> Any:
    """(time, y, x), NaN for missing, grid mapping with WKT, y from south to north."""
    rain = rng.gamma(0.3, 2.0, (6, 8, 10)).astype(np.float32).round(1)
    rain[:, 0, 0] = np.nan
    return xr.Dataset(
        {
            "rainfall_rate": (
                ("time", "y", "x"),
                rain,
                {"units": "mm/h", "standard_name": "rainfall_rate", "grid_mapping": "crs"},
            )
        },
        coords={
            "time": TIMES,
            "y": ("y", np.arange(8) * 1000.0, {"axis": "Y", "units": "m"}),
            "x": ("x", np.arange(10) * 1000.0, {"axis": "X", "units": "m"}),
            "crs": ((), 0, {"crs_wkt": pyproj.CRS(LAEA).to_wkt()}),
        },
        attrs={"license": "CC-BY-4.0", "institution": "somewhere"},
    )


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_mlcast_conventions(tmp_path: Path, kind: str, rng: np.random.Generator) -> None:
    theirs = mlcast_like(rng)
    path = tmp_path / f"rain.{kind}"
    if kind == "nc":
        theirs.to_netcdf(path)
    else:
        theirs.to_zarr(path, consolidated=False)
    dataset = open_frames(path)
    stored = theirs["rainfall_rate"].values[:, ::-1]  # rows from the north
    np.testing.assert_array_equal(dataset["frames"].values[:, 0], stored)
    expected = np.where(np.isnan(stored), 2, np.where(stored == 0, 1, 0))
    np.testing.assert_array_equal(dataset["state"].values, expected)
    assert grid_of(dataset).corners == (-500, -500, 9500, 7500)
    assert dataset["y"].values[0] == 7000
    assert pyproj.CRS.from_wkt(dataset["crs"].attrs["crs_wkt"]) == pyproj.CRS(LAEA)
    assert dataset["frames"].attrs["units"] == "mm h-1"
    assert dataset.attrs["licence"] == "CC-BY-4.0"
    assert dataset.attrs["cadence_s"] == 300


def test_one_frame_with_packed_values_scalar_time_and_km(tmp_path: Path) -> None:
    """As the Bureau of Meteorology writes rain fields."""
    written = xr.Dataset(
        {
            "precipitation": (
                ("y", "x"),
                np.array([[0.0, 0.5], [np.nan, 2.0]]),
                {"units": "mm", "grid_mapping": "proj"},
            ),
            "proj": ((), 0, pyproj.CRS(LAEA).to_cf()),
        },
        coords={
            "valid_time": np.datetime64("2024-01-01T00:30", "ns"),
            "y": ("y", [1.0, 0.0], {"units": "km", "standard_name": "projection_y_coordinate"}),
            "x": ("x", [5.0, 6.0], {"units": "km", "standard_name": "projection_x_coordinate"}),
        },
    )
    del written["proj"].attrs["crs_wkt"]
    packing = {"scale_factor": 0.05, "add_offset": 0.0, "_FillValue": -1, "dtype": "int16"}
    written.to_netcdf(tmp_path / "a.nc", encoding={"precipitation": packing})
    dataset = open_frames(tmp_path / "a.nc")
    np.testing.assert_allclose(dataset["frames"].values[0, 0], [[0, 0.5], [np.nan, 2]], rtol=1e-6)
    np.testing.assert_array_equal(dataset["state"].values[0], [[1, 0], [2, 0]])
    assert grid_of(dataset).corners == (4500, -500, 6500, 1500)
    assert str(dataset["time"].values[0]).startswith("2024-01-01T00:30")
    assert "crs" in dataset.coords


def test_flux_and_cf_rain_rate_become_mm_per_hour(tmp_path: Path) -> None:
    for units, standard, factor in (
        ("kg m-2 s-1", "rainfall_flux", 3600.0),
        ("m s-1", "rainfall_rate", 3.6e6),
    ):
        field = (("time", "lat", "lon"), np.full((2, 3, 4), 1.0 / factor, np.float64))
        written = xr.Dataset(
            {"pr": (*field, {"units": units, "standard_name": standard})},
            coords={"time": TIMES[:2], "lat": [3.0, 2.0, 1.0], "lon": [0.0, 1.0, 2.0, 3.0]},
        )
        path = tmp_path / f"{standard}.nc"
        written.to_netcdf(path)
        dataset = open_frames(path, units="mm/h")
        np.testing.assert_allclose(dataset["frames"].values, 1.0, rtol=1e-6)
        assert dataset["x"].attrs["units"] == "degrees_east"


def test_chosen_levels_become_channels_and_several_fields_need_a_choice(tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    written = xr.Dataset(
        {
            "wind": (("time", "level", "lat", "lon"), values, {"units": "m/s"}),
            "gust": (("time", "lat", "lon"), values[:, 0], {"units": "m/s"}),
        },
        coords={
            "time": TIMES[:2],
            "level": [850, 500, 250],
            "lat": np.arange(4.0)[::-1],
            "lon": np.arange(5.0),
        },
    )
    written.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(FrameError, match=r"fields wind, gust.*--variable wind"):
        open_frames(tmp_path / "a.nc")
    with pytest.raises(FrameError, match=r"--select level=850, or --select level=850,500,250"):
        open_frames(tmp_path / "a.nc", options=ReadOptions(variable="wind"))
    options = ReadOptions(variable="wind", select=(("level", "850,500,250"),))
    dataset = open_frames(tmp_path / "a.nc", options=options)
    np.testing.assert_array_equal(dataset["frames"].values, values)
    lone = open_frames(tmp_path / "a.nc", options=replace(options, select=(("level", "500"),)))
    np.testing.assert_array_equal(lone["frames"].values, values[:, 1:2])
    assert dataset.attrs["channels"].split("\n") == ["850", "500", "250"]


def test_units_are_checked_and_missing_ones_are_unknown(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    written = mlcast_like(rng)
    del written["rainfall_rate"].attrs["units"]
    written.to_netcdf(tmp_path / "a.nc")
    assert open_frames(tmp_path / "a.nc")["frames"].attrs["units"] == "unknown"
    with pytest.raises(FrameError, match=r"a\.nc is in unknown; expected mm h-1"):
        open_frames(tmp_path / "a.nc", units="mm/h")


def test_uneven_coordinates_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    written = mlcast_like(rng)
    written = written.assign_coords(x=written["x"] ** 1.1)
    written.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(FrameError, match="uneven coordinate x"):
        open_frames(tmp_path / "a.nc")


@pytest.mark.skipif(not KNMI.is_dir(), reason="no radar files in ../shared/data")
@pytest.mark.parametrize("kind", ["zarr", "nc", "npz"])
def test_converted_is_what_was_read(tmp_path: Path, kind: str) -> None:
    """Every value, coordinate and attribute of six real frames survives."""
    pytest.importorskip("h5py")
    folder = tmp_path / "knmi"
    folder.mkdir()
    for file in sorted(KNMI.iterdir())[:6]:
        (folder / file.name).symlink_to(file)
    original = open_frames(folder)
    survey = convert(folder, tmp_path / f"a.{kind}")
    assert survey.frames == 6
    back = open_frames(tmp_path / f"a.{kind}").load()
    xr.testing.assert_equal(back, original)
    for name in ("frames", "state", "x", "y"):
        found = {k: np.asarray(v).tolist() for k, v in back[name].attrs.items()}
        assert found == {k: np.asarray(v).tolist() for k, v in original[name].attrs.items()}
    for key, value in original.attrs.items():
        assert np.asarray(back.attrs[key]).tolist() == np.asarray(value).tolist()
    assert back["crs"].attrs["crs_wkt"] == original["crs"].attrs["crs_wkt"]
    if kind == "zarr":
        lazy = open_frames(tmp_path / "a.zarr")
        assert lazy["frames"].encoding["chunks"] == (1, 1, 765, 700)
        again = convert(tmp_path / "a.zarr", tmp_path / "b.zarr")
        assert again == survey


def test_zarr_in_several_blocks_and_with_sequences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr("stpl_core.readers.store._BLOCK_BYTES", 1000)
    frames = rng.random((3, 5, 2, 6, 7), dtype=np.float32)  # (N, T, C, H, W)
    np.save(tmp_path / "a.npy", frames)
    survey = convert(tmp_path / "a.npy", tmp_path / "a.zarr")
    assert (survey.frames, survey.sequences, survey.gaps) == (15, 3, [])
    back = open_frames(tmp_path / "a.zarr")
    np.testing.assert_array_equal(back["frames"].values, frames.reshape(15, 2, 6, 7))
    assert back["sequence"].values.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    xr.testing.assert_equal(back.load(), open_frames(tmp_path / "a.npy"))


def test_a_store_that_lost_bytes_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    np.save(tmp_path / "a.npy", rng.random((4, 64, 64), dtype=np.float32))
    convert(tmp_path / "a.npy", tmp_path / "a.zarr")
    chunks = sorted(
        (file for file in (tmp_path / "a.zarr" / "frames").rglob("*") if file.is_file()),
        key=lambda file: file.stat().st_size,
    )
    whole = chunks[-1].read_bytes()
    chunks[-1].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FrameError, match=r"a\.zarr has \d+ bytes of frames; expected \d+"):
        open_frames(tmp_path / "a.zarr")
    chunks[-1].unlink()
    with pytest.raises(FrameError, match=r"a\.zarr has \d+ bytes"):
        open_frames(tmp_path / "a.zarr")


def test_convert_refuses_what_is_there_and_unknown_endings(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    np.save(tmp_path / "a.npy", rng.random((2, 3, 3)))
    (tmp_path / "a.nc").write_text("precious")
    with pytest.raises(UsageError, match=r"a\.nc already exists"):
        convert(tmp_path / "a.npy", tmp_path / "a.nc")
    with pytest.raises(UsageError, match=r"ends in \.tiff; expected \.zarr, \.nc, \.npz"):
        convert(tmp_path / "a.npy", tmp_path / "a.tiff")
    assert (tmp_path / "a.nc").read_text() == "precious"


def test_a_broken_archive_leaves_nothing_behind(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    np.save(folder / "f_202401010000.npy", rng.random((3, 3)))
    np.save(folder / "f_202401010005.npy", rng.random((4, 3)))
    for kind in ("zarr", "nc", "npz"):
        with pytest.raises(FrameError, match=r"f_202401010005\.npy has frames of"):
            convert(folder, tmp_path / f"a.{kind}")
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
