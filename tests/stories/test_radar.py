"""From radar files to a georeferenced nowcast: read, train, export, predict, read again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

xr = pytest.importorskip("xarray")
pyproj = pytest.importorskip("pyproj")
pytest.importorskip("netCDF4")

from stpl_core.bundle import open_bundle, seal  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from stpl_deploy.cli import run  # noqa: E402

if TYPE_CHECKING:
    from xarray import Dataset

FMI = Path(__file__).parents[2].parent / "shared" / "data" / "radar" / "fmi_pgm" / "20160928"
KNMI = FMI.parents[1] / "knmi_hdf5" / "201008"
OPERA = FMI.parents[1] / "opera_odyssey_hdf5" / "20180824"
TOP, LEFT, SIDE = 0, 250, 128
"""A part in the north: a third each of rain, of nothing there and of what no radar sees."""

RECIPE = f"""
[model]
name = "convlstm"
hidden = [4]
kernel = 3
patch = 4

[data]
source = "archive"
path = "archive"
crop = [{TOP}, {LEFT}, {SIDE}, {SIDE}]
frame = [1, 64, 64]
context = 3
horizon = 2
validation_fraction = 0.3
test_fraction = 0.0

[data.codec]
quantity = "radar reflectivity"
units = "dBZ"
low = -32.0
high = 60.0
conversion = "dbz-to-rate"
zr = [223.0, 1.53]
kind = "db"
clip = true

[training]
iterations = 3
batch = 2
loss = "mse"
validate_every = 3
checkpoint_every = 3
threads = 1
"""


def lon_lat(dataset: Dataset, row: float, column: float) -> tuple[float, float]:
    """Degrees of a point of the grid that its own coordinates and grid mapping give."""
    name = [str(variable) for variable in dataset.variables]
    assert "crs" in name
    crs = pyproj.CRS.from_cf(dataset["crs"].attrs)
    x, y = dataset["x"].values, dataset["y"].values
    at_x, at_y = (
        np.interp(place, np.arange(len(axis)), axis) for place, axis in ((column, x), (row, y))
    )
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    lon, lat = to_degrees.transform(at_x, at_y)
    return float(lon), float(lat)


@pytest.mark.skipif(not FMI.is_dir(), reason="no FMI radar files in ../shared/data")
def test_from_fmi_files_to_cf_netcdf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for file in sorted(FMI.iterdir())[:16]:
        shutil.copy(file, archive)
    (tmp_path / "recipe.toml").write_text(RECIPE)

    monkeypatch.chdir(tmp_path)

    stderr = ""

    def call(*words: object, code: int = 0) -> str:
        nonlocal stderr
        capsys.readouterr()
        ended = run([str(word) for word in words])
        out, stderr = capsys.readouterr()
        assert ended == code, stderr
        return out

    call("train", "recipe.toml", "--out", "run", "--device", "cpu")
    call("export", "run", "--out", "fmi.bundle")
    manifest = open_bundle(tmp_path / "fmi.bundle").manifest
    assert manifest.cadence_s == 300
    assert manifest.codec.kind == "db"
    (grid,) = manifest.grids
    assert (grid.height, grid.width) == (64, 64)
    assert grid.affine[2] == pytest.approx(2000, rel=1e-3)
    assert "pixels of 2 x 2 km, Polar Stereographic" in call("inspect", "fmi.bundle")
    out = tmp_path / "nowcast.nc"
    report = json.loads(call("predict", "fmi.bundle", archive, "--out", out, "--json"))

    with open_frames(archive) as source, xr.open_dataset(out) as found:
        newest = source["time"].values[-1]
        assert report["issue_time"] == f"{np.datetime_as_string(newest, unit='s')}Z"
        assert found["forecast_reference_time"].values == newest
        steps = np.array([300, 600]) * np.timedelta64(1, "s")
        assert (found["time"].values == newest + steps).all()
        assert found["lead_time"].values.tolist() == [300.0, 600.0]
        values = found["nowcast"]
        assert values.shape == (2, 64, 64)
        assert values.attrs["units"] == source["frames"].attrs["units"] == "dBZ"
        assert values.attrs["standard_name"] == "equivalent_reflectivity_factor"
        assert pyproj.CRS.from_cf(found["crs"].attrs) == pyproj.CRS.from_cf(source["crs"].attrs)
        crop = source["state"].values[-1, TOP : TOP + SIDE, LEFT : LEFT + SIDE]
        assert 0.2 < (crop == 2).mean() < 0.5
        seen = (crop != 2).reshape(64, 2, 64, 2).mean(axis=(1, 3)) >= 0.5
        np.testing.assert_array_equal(
            np.isfinite(values.values), np.broadcast_to(seen, (2, 64, 64))
        )
        finite = values.values[np.isfinite(values.values)]
        assert (finite >= -32).all()
        assert (finite <= 60).all()
        for row, column in ((0, 0), (63, 63), (10, 50)):
            # The centre of a new pixel is the corner that four old ones share.
            there = lon_lat(source, TOP + 2 * row + 0.5, LEFT + 2 * column + 0.5)
            here = lon_lat(found, row, column)
            # 0.01 pixel of 2 km is 20 m; a degree of latitude is 111 km.
            metres = np.subtract(here, there) * 111_000
            assert np.abs(metres).max() < 20

    # Another radar with pixels of the same size is fine, and reported; one of twice the
    # size is not.
    rain = tmp_path / "knmi"
    rain.mkdir()
    for file in sorted(KNMI.iterdir())[:8]:
        shutil.copy(file, rain)
    middle = {"data": manifest.recipe["data"] | {"crop": [250, 250, SIDE, SIDE]}}
    recipe = manifest.recipe | middle  # the corner that was trained on is empty there
    seal(tmp_path / "fmi.bundle", manifest.model_copy(update={"recipe": recipe}))
    call("predict", "fmi.bundle", rain, "--out", "knmi.nc")
    assert "in another projection" in stderr
    assert "pixels of the same size; its crop [250, 250, 128, 128]" in stderr
    found = json.loads(call("evaluate", "fmi.bundle", "--data", rain, "--json"))
    assert found["sequences"] == 2
    assert "in another projection" in stderr
    coarse = ["predict", "fmi.bundle", OPERA, "--cadence", "900", "--out", "opera.nc"]
    call(*coarse, code=2)
    assert "has pixels of 4 x 4 km; expected 2 x 2 km, as this model was trained on" in stderr
    assert "--any-grid" in stderr
    call(*coarse, "--any-grid")
    assert "has pixels of 4 x 4 km; the model was trained on 2 x 2 km" in stderr
