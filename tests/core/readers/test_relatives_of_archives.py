"""Packed files, folders and stores as people leave them; expected: the plain file, zarr, xarray."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

xr = pytest.importorskip("xarray")
zarr = pytest.importorskip("zarr")
pytest.importorskip("netCDF4")

from stpl_core.errors import FrameError, StplError  # noqa: E402
from stpl_core.reader import NO_DATA, ReadOptions  # noqa: E402
from stpl_core.readers.converted import quantity_of  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from tests.core.readers.relatives import netcdf, rain  # noqa: E402

NAME = "rain_202406011200.npy"
TIMES = np.array(["2024-06-01T12:00", "2024-06-01T12:05"], "datetime64[ns]")
FRAME = np.random.default_rng(0).random((8, 8)).astype(np.float32)


def array() -> bytes:
    made = io.BytesIO()
    np.save(made, FRAME)
    return made.getvalue()


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        facts = tarfile.TarInfo(name)
        facts.size = len(content)
        archive.addfile(facts, io.BytesIO(content))
    return made.getvalue()


PACKED: dict[str, Callable[[], bytes]] = {
    "folder.zip": lambda: zipped(**{f"deep/er/{NAME}": array()}),
    "others.zip": lambda: zipped(**{NAME: array(), "README.md": b"x", f"__MACOSX/._{NAME}": b"x"}),
    "nested.zip": lambda: zipped(**{"inner.zip": zipped(**{NAME: array()})}),
    "of_gz.zip": lambda: zipped(**{f"{NAME}.gz": gzip.compress(array())}),
    "of_gz.tar": lambda: tarred(f"day/{NAME}.gz", gzip.compress(array())),
    f"{NAME}.gz.gz": lambda: gzip.compress(gzip.compress(array())),
    f"{NAME}.bz2.gz": lambda: gzip.compress(bz2.compress(array())),
    f"{NAME}.xz.bz2": lambda: bz2.compress(lzma.compress(array())),
    f"{NAME}.gz": lambda: bz2.compress(array()),  # packed in another way
    f"{NAME}.bz2": array,  # unpacked on its way here
}


@pytest.mark.parametrize("name", PACKED)
def test_however_it_is_packed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACKED[name]())
    opened = open_frames(tmp_path / name)
    np.testing.assert_array_equal(opened["frames"].values[0, 0], FRAME)
    assert str(opened["time"].values[0])[:16] == "2024-06-01T12:00"


def test_a_netcdf_file_that_lost_its_packing_but_not_its_name(tmp_path: Path) -> None:
    plain = netcdf(tmp_path / "rain.nc")
    (tmp_path / "rain.nc.gz").write_bytes(plain.read_bytes())
    opened = open_frames(tmp_path / "rain.nc.gz")
    np.testing.assert_array_equal(opened["frames"].values, open_frames(plain)["frames"].values)


@pytest.mark.parametrize(
    "content",
    [b"", gzip.compress(array())[:40], b"<html>not found</html>"],
    ids=["empty", "cut", "html"],
)
def test_damage_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{NAME}.gz"
    path.write_bytes(content)
    with pytest.raises(FrameError, match=path.name):
        open_frames(path)


@pytest.mark.parametrize("key", ["time", "times", "timestamps", "dates"])
@pytest.mark.parametrize("texts", [False, True])
def test_times_beside_arrays(tmp_path: Path, key: str, texts: bool) -> None:
    times = np.array([f"{time}Z" for time in TIMES.astype("M8[m]")]) if texts else TIMES
    np.savez(tmp_path / "a.npz", rain=np.stack([FRAME] * 2), units="mm/h", **{key: times})
    opened = open_frames(tmp_path / "a.npz")
    np.testing.assert_array_equal(opened["time"].values, TIMES)
    assert quantity_of(opened).units == "mm h-1"


@pytest.mark.parametrize("key", ["scale_factor", "gain", "add_offset"])
def test_factors_beside_arrays_are_not_passed_over(tmp_path: Path, key: str) -> None:
    np.savez(tmp_path / "a.npz", frames=(FRAME * 100).astype("i2"), units="mm/h", **{key: 0.01})
    with pytest.raises(FrameError, match=f"holds {key} beside"):
        open_frames(tmp_path / "a.npz")


def test_folders_of_links(tmp_path: Path) -> None:
    """A linked day, a linked frame, a link to nothing, a loop; hidden and unfinished files."""
    real, folder = tmp_path / "real", tmp_path / "archive"
    real.mkdir(), folder.mkdir()
    for minute in (0, 5):
        np.save(real / f"rain_2024060112{minute:02}.npy", FRAME)
    (folder / "day").symlink_to(real, target_is_directory=True)
    (folder / "rain_202406011210.npy").symlink_to(real / NAME)
    (folder / "rain_202406011215.npy").symlink_to(tmp_path / "nothing.npy")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "RAIN_202406011220.NPY").write_bytes(array())
    (folder / ".rain_202406011225.npy").write_bytes(b"hidden")
    (folder / "rain_202406011230.npy.tmp").write_bytes(b"unfinished")
    times = open_frames(folder)["time"].values
    assert [str(time)[14:16] for time in times] == ["00", "05", "10", "20"]


def field(fill: float | None = None) -> Any:
    values = np.stack([rain()] * 2).astype("f4")
    if fill is not None:
        values[:, 5] = fill
    return xr.Dataset(
        {"rr": (("time", "lat", "lon"), values, {"units": "mm/h"})},
        {
            "time": TIMES,
            "lat": ("lat", 55 - 0.01 * np.arange(8), {"units": "degrees_north"}),
            "lon": ("lon", 5 + 0.01 * np.arange(8), {"units": "degrees_east"}),
        },
    )


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("way", ["plain", "one file", "packed", "NaN", "fill", "group", "zip"])
@pytest.mark.filterwarnings("ignore")  # of zarr, as it writes
def test_stores_as_xarray_reads_them(tmp_path: Path, version: int, way: str) -> None:
    made = field({"NaN": np.nan, "fill": -1.0, "packed": -1.0}.get(way))
    encoding: dict[str, Any] = {}
    if way == "packed":
        encoding = {"rr": {"dtype": "i2", "scale_factor": 0.1, "_FillValue": -10}}
    elif way == "fill":
        made["rr"].attrs["missing_value"] = -1.0
    path = tmp_path / ("a.zarr.zip" if way == "zip" else "a.zarr")
    group = "precipitation/radar" if way == "group" else None
    store: Any = zarr.storage.ZipStore(str(path), mode="w") if way == "zip" else path
    facts = {"zarr_format": version, "consolidated": way == "one file"}
    made.to_zarr(store, group=group, encoding=encoding, **facts)
    if way == "zip":
        store.close()
        theirs = made["rr"].values
    else:
        with xr.open_zarr(path, group=group, consolidated=False) as again:
            theirs = again["rr"].values
    chosen = [ReadOptions()] + ([ReadOptions(variable=f"{group}/rr")] if group else [])
    for options in chosen:
        opened = open_frames(path, options=options)
        np.testing.assert_allclose(opened["frames"].values[:, 0], theirs, rtol=1e-6)
        np.testing.assert_array_equal(opened["state"].values == NO_DATA, np.isnan(theirs))
    if group:
        with pytest.raises(StplError):
            open_frames(path, options=ReadOptions(variable="nowhere/rr"))
