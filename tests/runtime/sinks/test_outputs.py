"""CF-NetCDF, Zarr and GeoTIFF: times, units, grid and mask, as other libraries read them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

xr = pytest.importorskip("xarray")
pyproj = pytest.importorskip("pyproj")
pytest.importorskip("netCDF4")

from stpl_core.bundle import Bundle  # noqa: E402
from stpl_core.errors import MissingExtraError, SinkError, UsageError  # noqa: E402
from stpl_core.grid import Grid  # noqa: E402
from stpl_core.readers.converted import grid_of  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from stpl_runtime.engine import Session  # noqa: E402
from stpl_runtime.nowcast import Nowcast  # noqa: E402
from stpl_runtime.nowcasting.predict import predict_sequences  # noqa: E402
from stpl_runtime.sinks.file_format import format_of  # noqa: E402
from tests.runtime.conftest import CADENCE_S, START, Cli, picture, slot_time  # noqa: E402

WKT = pyproj.CRS.from_epsg(3067).to_wkt()
GRID = Grid((300000.0, 7000000.0, 1000.0, -1000.0), 16, 16, WKT)


def write(path: Path, made: Nowcast) -> None:
    format_of(path.suffix).write(path, made)


def nowcast(channels: int = 1) -> Nowcast:
    """Three frames after `START`, the left half not observed."""
    observed = np.ones((16, 16), bool)
    observed[:, :8] = False
    return Nowcast(
        frames=np.stack([picture(n, (channels, 16, 16)) for n in range(3)]),
        context=np.zeros((4, channels, 16, 16), np.float32),
        units="mm h-1",
        quantity="rain rate",
        low=0.0,
        high=1.0,
        issue_time=START,
        cadence_s=CADENCE_S,
        context_times=tuple(slot_time(n) for n in range(-3, 1)),
        source_id="last.h5",
        made_by={"engine": "onnx", "model": "convlstm"},
        grid=GRID,
        observed=observed,
        standard_name="rainfall_rate",
        notes={"licence": "CC BY 4.0"},
        context_fill=("", "held", "", ""),
    )


def opened(path: Path) -> Any:
    return xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_cf_as_xarray_reads_it(tmp_path: Path, suffix: str) -> None:
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    made = nowcast()
    write(tmp_path / f"n{suffix}", made)
    with opened(tmp_path / f"n{suffix}") as found:
        values = found["nowcast"]
        assert values.dims == ("time", "y", "x")
        np.testing.assert_array_equal(values.values[:, :, 8:], made.frames[:, 0, :, 8:])
        assert np.isnan(values.values[:, :, :8]).all()
        assert values.attrs["units"] == "mm h-1"
        assert values.attrs["standard_name"] == "rainfall_rate"
        assert np.isnan(values.encoding["_FillValue"])
        issued = np.datetime64(START.replace(tzinfo=None), "ns")
        steps = np.arange(1, 4) * np.timedelta64(300, "s")
        assert found["forecast_reference_time"].values == issued
        assert (found["time"].values == issued + steps).all()
        assert found["lead_time"].values.tolist() == [300.0, 600.0, 900.0]
        assert found["lead_time"].attrs["standard_name"] == "forecast_period"
        assert found["x"].values.tolist() == GRID.x.tolist()
        assert found["y"].values.tolist() == GRID.y.tolist()
        mapping = found[values.attrs.get("grid_mapping") or values.encoding["grid_mapping"]]
        assert pyproj.CRS.from_cf(mapping.attrs) == pyproj.CRS.from_epsg(3067)
        assert found.attrs["Conventions"] == "CF-1.11"
        assert found.attrs["licence"] == "CC BY 4.0"
        assert found.attrs["input_times"].split()[-1] == "2026-01-31T23:50:00Z"
        assert found.attrs["stand_ins"] == "observed held observed observed"
        assert found.attrs["filled_times"] == "2026-01-31T23:40:00Z"
        assert "engine onnx" in found.attrs["source"]
        np.testing.assert_array_equal(found["observed"].values, made.observed)
        assert found["observed"].attrs["flag_meanings"] == "not_observed observed"


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_our_own_reader_reads_it(tmp_path: Path, suffix: str) -> None:
    made = nowcast()
    write(tmp_path / f"n{suffix}", made)
    found = open_frames(tmp_path / f"n{suffix}", units="mm h-1")
    np.testing.assert_array_equal(found["frames"].values, made.masked())
    assert grid_of(found).same_as(GRID)
    found.close()


def test_channels_and_frames_without_times(tmp_path: Path) -> None:
    made = replace(nowcast(2), issue_time=None, cadence_s=None, grid=None, observed=None)
    write(tmp_path / "n.nc", made)
    with xr.open_dataset(tmp_path / "n.nc") as found:
        assert found["nowcast"].dims == ("step", "channel", "y", "x")
        assert found["step"].values.tolist() == [1, 2, 3]
        assert "crs" not in found
        np.testing.assert_array_equal(found["nowcast"].values, made.frames)


def test_fractions_of_a_second_survive(tmp_path: Path) -> None:
    write(tmp_path / "n.nc", replace(nowcast(), cadence_s=0.04))
    with xr.open_dataset(tmp_path / "n.nc") as found:
        first = found["time"].values[0] - found["forecast_reference_time"].values
        assert first == np.timedelta64(40, "ms")


@pytest.mark.parametrize("channels", [1, 2])
def test_geotiff_as_rasterio_reads_it(tmp_path: Path, channels: int) -> None:
    rasterio = pytest.importorskip("rasterio")
    made = nowcast(channels)
    write(tmp_path / "n.tif", made)
    with rasterio.open(tmp_path / "n.tif") as file:
        assert file.count == 3 * channels
        bands = file.read()
        np.testing.assert_array_equal(bands[:, :, 8:], made.frames.reshape(-1, 16, 16)[:, :, 8:])
        assert (file.read_masks(1)[:, :8] == 0).all()
        assert (file.read_masks(1)[:, 8:] == 255).all()
        assert np.isnan(file.nodata)
        assert file.descriptions[0].startswith("2026-01-31T23:55:00Z")
        assert file.descriptions[-1].startswith("2026-02-01T00:05:00Z")
        assert set(file.scales) == {1.0}
        assert set(file.offsets) == {0.0}
        assert set(file.units) == {"mm h-1"}
        assert file.tags()["forecast_reference_time"] == "2026-01-31T23:50:00Z"
        assert file.tags()["filled_times"] == "2026-01-31T23:40:00Z"
        assert file.tags()["licence"] == "CC BY 4.0"
        assert file.tags(1)["lead_time_s"] == "300"
        assert file.crs.to_epsg() == 3067
        assert file.xy(0, 0) == (GRID.x[0], GRID.y[0])


def test_a_batch_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    many = replace(nowcast(), frames=np.zeros((2, 3, 1, 16, 16), np.float32))
    for suffix in (".nc", ".tif", ".zarr"):
        with pytest.raises(UsageError, match=f"2 sequences for one {suffix} file"):
            write(tmp_path / f"n{suffix}", many)
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "netCDF4", None)
    with pytest.raises(MissingExtraError, match=r"netcdf"):
        format_of(".nc").check_installed()


def written(path: Path, count: int, **changes: Any) -> Path:
    """A CF file of `count` frames of the tests' pictures on `GRID`, units 1."""
    frames = np.stack([picture(n)[0] for n in range(count)])
    frames[:, 2, 3] = np.nan
    time = np.array([slot_time(n).replace(tzinfo=None) for n in range(count)], "datetime64[ns]")
    time += np.array(changes.get("shift", [0] * count), "timedelta64[s]")
    units = changes.get("units", "1")
    y_is = {"standard_name": "projection_y_coordinate", "units": "m"}
    x_is = {"standard_name": "projection_x_coordinate", "units": "m"}
    if changes.get("empty") is not None:
        frames[changes["empty"]] = np.nan
    xr.Dataset(
        {
            "grey": (("time", "y", "x"), frames, {"units": units, "grid_mapping": "crs"}),
            "crs": ((), 0, pyproj.CRS.from_wkt(WKT).to_cf()),
        },
        coords={"time": time, "y": ("y", GRID.y, y_is), "x": ("x", GRID.x, x_is)},
        attrs={"institution": "a test"},
    ).to_netcdf(path)
    return path


@pytest.mark.parametrize("suffix", [".nc", ".tif", ".zarr", ".npz"])
def test_predict_from_an_archive(
    cli: Cli, bundle: Bundle, session: Session, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"o{suffix}"
    code, stdout, err = cli(
        "predict", bundle.path, written(tmp_path / "in.nc", 6), "--out", out, "--json"
    )
    assert code == 0, err
    report = json.loads(stdout)
    assert report["issue_time"] == f"{slot_time(5):%Y-%m-%dT%H:%M:%SZ}"
    assert report["valid_times"][0] == f"{slot_time(6):%Y-%m-%dT%H:%M:%SZ}"
    frames = np.stack([picture(n) for n in range(2, 6)])
    frames[:, 0, 2, 3] = 0.0
    expected = predict_sequences(bundle, session, frames[None], 3)[0]
    hole = np.zeros((16, 16), bool)
    hole[2, 3] = True
    if suffix == ".npz":
        with np.load(out) as archive:
            np.testing.assert_array_equal(archive["frames"], expected)
            np.testing.assert_array_equal(archive["observed"], ~hole)
            assert archive["affine"].tolist() == list(GRID.affine)
        return
    if suffix == ".tif":
        rasterio = pytest.importorskip("rasterio")
        with rasterio.open(out) as file:
            found, corner = file.read(), file.xy(0, 0)
    else:
        with opened(out) as dataset:
            found = dataset["nowcast"].values
            corner = (float(dataset["x"][0]), float(dataset["y"][0]))
            assert dataset.attrs["institution"] == "a test"
    np.testing.assert_array_equal(found, np.where(hole, np.nan, expected[:, 0]))
    assert corner == (GRID.x[0], GRID.y[0])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"units": "dBZ"}, "in.nc is in dBZ; expected 1"),
        ({"shift": [-300] * 4 + [0] * 2}, "no frame of 20260201T000500Z before"),
        ({"empty": 4}, "in.nc (20260201T001000Z) has no data all over"),
    ],
)
def test_predict_refuses_what_it_cannot_use(
    cli: Cli, bundle: Bundle, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    source = written(tmp_path / "in.nc", 6, **changes)
    words = ("predict", bundle.path, source, "--out", tmp_path / "o.nc", "--cadence", 300)
    code, out, err = cli(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err
    assert not (tmp_path / "o.nc").exists()


def test_predict_refuses_another_size(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    xr.Dataset(
        {"grey": (("time", "y", "x"), np.zeros((6, 20, 20), np.float32), {"units": "1"})},
        coords={"time": np.datetime64("2026-01-01", "ns") + np.arange(6) * np.timedelta64(5, "m")},
    ).to_netcdf(tmp_path / "in.nc")
    code, _, err = cli("predict", bundle.path, tmp_path / "in.nc", "--out", tmp_path / "o.nc")
    assert code == 2
    assert "has frames of shape (1, 20, 20); expected (1, 16, 16)" in err


@pytest.mark.parametrize("suffix", [".nc", ".mp4"])
def test_no_room_in_the_temporary_directory_is_a_sink_error(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These libraries want a path; NetCDF's own error for a full disk is a RuntimeError."""
    pytest.importorskip("av")
    room, out = tmp_path / "room", tmp_path / f"out{suffix}"
    monkeypatch.setattr("tempfile.tempdir", str(room))
    with pytest.raises(
        SinkError, match=f"cannot write {out}: No such file or directory, in {room}"
    ):
        write(out, nowcast())
    room.mkdir()
    assert format_of(suffix).bytes_of(nowcast())

    def full(*_given: object, **_options: object) -> None:
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr("xarray.Dataset.to_netcdf", full)
    monkeypatch.setattr("av.open", full)
    with pytest.raises(OSError, match=f"NetCDF: HDF error, in {room}"):  # no stream ends by it
        format_of(suffix).bytes_of(nowcast())
    assert list(tmp_path.rglob("*")) == [room]
