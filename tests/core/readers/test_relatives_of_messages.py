"""What messages say of a file is true, and what they say to type works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

netCDF4 = pytest.importorskip("netCDF4")
h5py = pytest.importorskip("h5py")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("xarray")

from stpl_core.errors import FrameError, StplError, UsageError  # noqa: E402
from stpl_core.reader import ReadOptions  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from tests.core.readers.relatives import netcdf  # noqa: E402
from tests.core.readers.test_composites import knmi  # noqa: E402

PLAIN = np.zeros((3, 8, 8), np.float32)


def refused(path: Path, **facts: Any) -> StplError:
    with pytest.raises(StplError) as error:
        open_frames(path, facts.pop("reader", None), ReadOptions(**facts))
    return error.value


@pytest.mark.parametrize("name", ["plain.h5", "it's two words.h5"])
def test_the_line_of_python_makes_an_array(tmp_path: Path, name: str) -> None:
    with h5py.File(tmp_path / name, "w") as file:
        file["g/frames"] = PLAIN
    command = refused(tmp_path / name).fix.replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert open_frames(tmp_path / name.replace(".h5", ".npy"))["frames"].shape == (3, 1, 8, 8)


def test_readers_that_are_named_read_something(tmp_path: Path) -> None:
    np.save(tmp_path / "a_202406011200.npy", PLAIN[0])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "b_202406011205.png")
    words = refused(tmp_path).found.partition("readers ")[2].split(", ")
    assert words == ["arrays", "pictures"]
    for word in words:
        assert open_frames(tmp_path, word)["frames"].shape == (1, 1, 8, 8)


def test_one_of_several_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=PLAIN, b=PLAIN)
    variable = refused(tmp_path / "a.npz").fix.removeprefix("--variable ")
    assert (
        open_frames(tmp_path / "a.npz", options=ReadOptions(variable=variable)).sizes["time"] == 3
    )


def test_impossible_values_of_a_format_without_a_choice(tmp_path: Path) -> None:
    """KNMI states its unit and holds one field: only the share may be raised."""
    path = knmi(tmp_path / "a_202406011205.h5", "GEO=PV")
    fix = refused(path).fix
    assert "--units" not in fix
    assert "--variable" not in fix
    share = re.search(r"--bad-pixels ([\d.]+)", fix)
    assert share is not None
    opened = open_frames(path, options=ReadOptions(bad_pixels=float(share[1])))
    assert np.isnan(opened["frames"].values[0, 0, 5, 5])


@pytest.mark.parametrize("text", ["mm/fortnightly", "mm per 5 minutess", "mm/5'", "kg/m2/uur"])
def test_units_that_are_misspelt(tmp_path: Path, text: str) -> None:
    path = netcdf(tmp_path / "a.nc")
    error = refused(path, units=text)
    assert isinstance(error, UsageError)
    assert f"--units {text} is not understood" in str(error)
    units = error.fix.removeprefix("--units ")
    assert open_frames(path, options=ReadOptions(units=units))["frames"].attrs["units"] == "mm h-1"


def test_a_pattern_that_fits_no_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a_202406011200.npy", PLAIN[0])
    error = refused(tmp_path / "a_202406011200.npy", time_format="%Y-%m-%d")
    assert "--mtime" not in str(error)  # which `data convert` has not
    assert str(open_frames(tmp_path / "a_202406011200.npy")["time"].values[0])[:10] == "2024-06-01"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npz", b"{}", r"is no .npz: it begins with b'\{\}'"),
        ("a.npy", b"1,2,3\n4,5,6\n", "is no .npy: it begins with b'1,2,3"),
    ],
)
def test_another_kind_is_called_no_truncated_copy(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path / name)
    assert re.search(words, str(error))
    assert "truncated" not in str(error)
    assert "pickled" not in str(error)


def test_objects_are_called_objects(tmp_path: Path) -> None:
    rows = np.empty(3, object)
    rows[:] = [np.full((8, 8), k, np.float64) for k in range(3)]
    path = tmp_path / "a.npy"
    np.save(path, rows, allow_pickle=True)
    error = refused(path)
    assert "holds Python objects" in str(error)
    names = {"numpy": np, "path": path, "array": rows}
    eval(error.fix, names)
    assert open_frames(path)["frames"].shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        (("azimuth", "range"), "wradlib or xradar"),
        (("time", "ncells"), "cdo remapnn"),
        (("a", "b"), "ncrename -d a,y -d b,x"),
    ],
)
def test_fields_over_other_dimensions(tmp_path: Path, dims: tuple[str, str], words: str) -> None:
    path = tmp_path / "rain_202406011200.nc"
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in zip(dims, (4, 5), strict=True):
            file.createDimension(dim, size)
        made = file.createVariable("rr", "f4", dims)
        made.units, made[:] = "mm/h", 1.0
    error = refused(path)
    assert isinstance(error, FrameError)
    assert words in error.fix
    if dims == ("a", "b"):  # what ncrename does
        with netCDF4.Dataset(path, "a") as file:
            file.renameDimension("a", "y")
            file.renameDimension("b", "x")
        assert open_frames(path)["frames"].shape == (1, 1, 4, 5)
