"""GRIB: values and grids as eccodes gives them, and no trace of eccodes in this process."""

from __future__ import annotations

import gzip
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("xarray")
pytest.importorskip("pyproj")
if importlib.util.find_spec("eccodes") is None:
    pytest.skip("eccodes is not installed", allow_module_level=True)

from stpl_core.errors import EnvironmentFault, FrameError
from stpl_core.reader import NO_DATA, NO_ECHO, ReadOptions
from stpl_core.readers import grib
from stpl_core.readers.converted import grid_of
from stpl_core.readers.opening import open_frames

DATA = Path(__file__).parents[3].parent / "shared" / "data"
MRMS = DATA / "radar" / "mrms_grib2" / "20190610"
ERA5 = DATA / "weather_grid" / "era5-2mt-2019-03-uk.grib"

needs_files = pytest.mark.skipif(not MRMS.is_dir(), reason="no GRIB files in ../shared/data")

BY_ECCODES = """
import sys, numpy, eccodes
path, number, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(path, "rb") as file:
    for _ in range(number + 1):
        message = eccodes.codes_grib_new_from_file(file)
shape = [eccodes.codes_get(message, key) for key in ("Nj", "Ni")]
values = eccodes.codes_get_values(message).reshape(shape)
nearest = eccodes.codes_grib_find_nearest(message, float(sys.argv[4]), float(sys.argv[5]))[0]
numpy.savez(out, values=values, nearest=[nearest.lat, nearest.lon, nearest.value])
"""


def by_eccodes(
    path: Path, number: int, near: tuple[float, float], out: Path
) -> dict[str, np.ndarray]:
    """Values of a message and the grid point nearest to (lat, lon), in a process of its own."""
    arguments = [str(path), str(number), str(out), *map(str, near)]
    subprocess.run([sys.executable, "-c", BY_ECCODES, *arguments], check=True)
    with np.load(out) as archive:
        return dict(archive)


@needs_files
def test_mrms_as_eccodes(tmp_path: Path) -> None:
    path = sorted(MRMS.iterdir())[1]
    dataset = open_frames(path)
    peak = dataset["frames"][0, 0].fillna(0).argmax(("y", "x"))
    wettest = dataset["frames"][0, 0][peak]
    near = (float(wettest["y"]), float(wettest["x"]))
    theirs = by_eccodes(path, 0, near, tmp_path / "a.npz")
    stored, state = theirs["values"].astype(np.float32), dataset["state"].values[0]
    expected = np.where(stored < 0, np.float32(np.nan), stored)
    np.testing.assert_array_equal(dataset["frames"].values[0, 0], expected)
    np.testing.assert_array_equal(state == NO_DATA, stored == -3)
    np.testing.assert_array_equal(state == NO_ECHO, stored == 0)
    np.testing.assert_allclose(grid_of(dataset).corners, (-130, 20, -60, 55), rtol=0, atol=1e-4)
    np.testing.assert_allclose(theirs["nearest"][:2], (near[0], near[1] + 360), rtol=0, atol=1e-4)
    assert float(wettest) == np.float32(theirs["nearest"][2]) > 100
    assert dataset["frames"].attrs["units"] == "mm h-1"
    assert str(dataset["time"].values[0]).startswith("2019-06-10T00:02:00")


@needs_files
def test_era5_as_eccodes(tmp_path: Path) -> None:
    dataset = open_frames(ERA5, units="kelvin")
    assert dataset["frames"].shape == (744, 1, 33, 49)
    for number in (0, 743):
        theirs = by_eccodes(ERA5, number, (51.5, 0.0), tmp_path / f"{number}.npz")
        np.testing.assert_array_equal(
            dataset["frames"].values[number, 0], theirs["values"].astype(np.float32)
        )
    lat, lon, value = theirs["nearest"]
    here = dataset["frames"][-1, 0].sel(y=lat, x=lon)
    assert float(here) == np.float32(value)
    np.testing.assert_allclose(grid_of(dataset).corners, (-10.125, 49.875, 2.125, 58.125))
    assert dataset.attrs["cadence_s"] == 3600
    assert str(dataset["time"].values[-1]).startswith("2019-03-31T23:00:00")


@needs_files
def test_era5_variable_by_short_name() -> None:
    assert open_frames(ERA5, options=ReadOptions(variable="2t")).sizes["time"] == 744
    with pytest.raises(FrameError, match="no field msl"):
        open_frames(ERA5, options=ReadOptions(variable="msl"))


@needs_files
def test_gzipped_grib_is_the_same(tmp_path: Path) -> None:
    packed = tmp_path / "era5.grib2.gz"
    packed.write_bytes(gzip.compress(ERA5.read_bytes(), 1))
    np.testing.assert_array_equal(
        open_frames(packed)["frames"].values, open_frames(ERA5)["frames"].values
    )


@needs_files
def test_decoding_leaves_no_trace_and_the_process_ends_well() -> None:
    """eccodes imported before pyproj breaks its database and crashes at the end (exit 139)."""
    program = (
        "import sys, h5py, pyproj\n"
        "from pathlib import Path\n"
        "from stpl_core.readers.opening import open_frames\n"
        "dataset = open_frames(Path(sys.argv[1]))\n"
        "assert 'eccodes' not in sys.modules\n"
        "assert pyproj.CRS('EPSG:3067').to_wkt()\n"
        "print(dataset.sizes['time'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ERA5)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "744", "")


@needs_files
def test_a_decoder_that_dies_is_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed half-way, it is reported as a broken environment, not as fewer frames."""
    popen = subprocess.Popen
    dying = "import os; os.kill(os.getpid(), 9)"

    def start(command: list[str], **how: object) -> object:
        return popen([command[0], "-c", dying], **how)  # type: ignore[call-overload]  # as Popen

    monkeypatch.setattr(grib.subprocess, "Popen", start)
    with pytest.raises(EnvironmentFault, match="ended with code -9"):
        open_frames(ERA5, reader="era5")


@pytest.mark.parametrize(
    ("first", "last", "west"),
    [
        (230.005, 299.995, -130.0),
        (0.0, 359.75, -0.125),
        (350.0, 2.0, -10.125),
        (-10.0, 2.0, -10.125),
    ],
)
def test_longitudes_start_where_the_field_does(first: float, last: float, west: float) -> None:
    step = 0.01 if first == 230.005 else 0.25
    width = round(((last - first) % 360) / step) + 1
    keys = {
        "latitudeOfFirstGridPointInDegrees": 10.0, "latitudeOfLastGridPointInDegrees": 0.0,
        "longitudeOfFirstGridPointInDegrees": first, "longitudeOfLastGridPointInDegrees": last,
        "iDirectionIncrementInDegrees": step, "jDirectionIncrementInDegrees": 10.0,
        "iScansNegatively": 0, "gridType": "regular_ll",
    }  # fmt: skip
    grid = grib.grid_of(grib.Message(keys, np.zeros((2, width), np.float32)))
    assert grid.affine[0] == pytest.approx(west)
    assert grid.affine[2] == pytest.approx(step)
    assert grid.corners[2] == pytest.approx(west + width * step)


EIGHT_WAYS = """
import sys, numpy, eccodes
out, field = sys.argv[1], numpy.load(sys.argv[2])
lats, lons = 55.0 - 0.5 * numpy.arange(field.shape[0]), 350.0 + 0.5 * numpy.arange(field.shape[1])
for n in range(8):
    from_east, from_south, by_columns = n & 1, n >> 1 & 1, n >> 2 & 1
    message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    rows, columns = lats[:: -1 if from_south else 1], lons[:: -1 if from_east else 1]
    values = field[:: -1 if from_south else 1, :: -1 if from_east else 1]
    facts = {
        "Ni": field.shape[1], "Nj": field.shape[0], "iScansNegatively": from_east,
        "jScansPositively": from_south, "jPointsAreConsecutive": by_columns,
        "latitudeOfFirstGridPointInDegrees": rows[0], "latitudeOfLastGridPointInDegrees": rows[-1],
        "longitudeOfFirstGridPointInDegrees": columns[0],
        "longitudeOfLastGridPointInDegrees": columns[-1],
        "iDirectionIncrementInDegrees": 0.5, "jDirectionIncrementInDegrees": 0.5,
        "dataDate": 20240601, "dataTime": 1200, "shortName": "2t",
    }
    for key, value in facts.items():
        eccodes.codes_set(message, key, value if isinstance(value, str) else
                          float(value) if key.endswith("InDegrees") else int(value))
    eccodes.codes_set_values(message, (values.T if by_columns else values).ravel())
    with open(f"{out}/{n}.grib2", "wb") as file:
        eccodes.codes_write(message, file)
"""


def test_a_field_is_the_same_whichever_way_it_was_scanned(tmp_path: Path) -> None:
    field = 280 + np.arange(20.0).reshape(4, 5)
    np.save(tmp_path / "field.npy", field)
    arguments = [str(tmp_path), str(tmp_path / "field.npy")]
    subprocess.run([sys.executable, "-c", EIGHT_WAYS, *arguments], check=True)
    for n in range(8):
        opened = open_frames(tmp_path / f"{n}.grib2")
        np.testing.assert_allclose(opened["frames"].values[0, 0], field, atol=1e-3)
        assert grid_of(opened).affine == pytest.approx((-10.25, 55.25, 0.5, -0.5))
