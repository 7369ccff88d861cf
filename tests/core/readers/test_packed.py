"""Every format packed: the same frames as plain, within the budget, and damage named."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("xarray")
Image = pytest.importorskip("PIL.Image")

from stpl_core.errors import FrameError  # noqa: E402
from stpl_core.reader import ReadOptions  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from stpl_core.safety import budget  # noqa: E402

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
}  # fmt: skip


def frames(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (6, 8), np.uint8)  # (H, W)


def member(folder: Path, name: str, seed: int = 0) -> Path:
    """A file of one frame, of the format that its name ends in."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    values = frames(seed)
    if name.endswith(".npy"):
        np.save(path, values)
    elif name.endswith(".png"):
        Image.fromarray(values).save(path)
    elif name.endswith(".nc"):
        xr = pytest.importorskip("xarray")
        pytest.importorskip("netCDF4")
        data = xr.Dataset({"rain": (("y", "x"), values.astype("f4"), {"units": "mm/h"})})
        data.to_netcdf(path)
    elif name.endswith(".tif"):
        rasterio = pytest.importorskip("rasterio")
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(
                path, "w", driver="GTiff", count=1, height=6, width=8, dtype="uint8"
            ) as file:
                file.write(values[None])
    return path


@pytest.mark.parametrize("end", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("suffix", [".npy", ".png", ".nc", ".tif"])
def test_packed_is_as_plain(tmp_path: Path, suffix: str, end: str) -> None:
    plain = member(tmp_path, f"rain_202406011200{suffix}")
    packed = tmp_path / "packed" / f"{plain.name}{end}"
    packed.parent.mkdir()
    packed.write_bytes(PACK[end](plain.read_bytes()))
    ours, expected = open_frames(packed), open_frames(plain)
    np.testing.assert_array_equal(ours["frames"].values, expected["frames"].values)
    assert ours["time"].values[0] == expected["time"].values[0]
    assert ours.attrs["files"] == str(packed)
    as_folder = open_frames(packed.parent)
    np.testing.assert_array_equal(as_folder["frames"].values, expected["frames"].values)


@pytest.mark.parametrize("suffix", [".npy", ".png", ".nc", ".tif"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_many_in_one_archive(tmp_path: Path, suffix: str, kind: str) -> None:
    folder = tmp_path / "plain"
    names = [f"2024/rain_20240601120{n}{suffix}" for n in range(3)]
    files = [member(folder, name, n) for n, name in enumerate(names)]
    archive = tmp_path / f"day.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as out:
            out.writestr("README.txt", "about")
            for name, file in zip(names, files, strict=True):
                out.write(file, name)
    else:
        with tarfile.open(archive, f"w:{kind.partition('.')[2]}") as out:
            for name, file in zip(names, files, strict=True):
                out.add(file, name)
    ours, expected = open_frames(archive), open_frames(folder)
    np.testing.assert_array_equal(ours["frames"].values, expected["frames"].values)
    np.testing.assert_array_equal(ours["time"].values, expected["time"].values)
    assert ours.attrs["files"].splitlines()[0].startswith(f"{archive}/")


def test_a_zipped_zarr_store(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    from stpl_core.readers.store import convert

    store = tmp_path / "a.zarr"
    convert(member(tmp_path, "rain_202406011200.npy"), store)
    archive = tmp_path / "a.zarr.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in sorted(store.rglob("*")):
            out.write(file, f"a.zarr/{file.relative_to(store)}")
    np.testing.assert_array_equal(
        open_frames(archive)["frames"].values, open_frames(store)["frames"].values
    )


def test_times_in_the_folders_count_for_a_pattern(tmp_path: Path) -> None:
    plain = member(tmp_path, "2024/06/01/1205.npy")
    packed = plain.with_name("1205.npy.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    opened = open_frames(packed, options=ReadOptions(time_format="%Y/%m/%d/%H%M"))
    assert str(opened["time"].values[0]).startswith("2024-06-01T12:05:00")


def test_errors_name_the_packed_file(tmp_path: Path) -> None:
    cut = tmp_path / "a.npy.gz"
    cut.write_bytes(gzip.compress(member(tmp_path, "b.npy").read_bytes())[:-20])
    with pytest.raises(FrameError, match=r"a\.npy\.gz cannot be unpacked"):
        open_frames(cut)
    wrong = tmp_path / "c.npy.gz"
    wrong.write_bytes(gzip.compress(b"no array"))
    with pytest.raises(FrameError) as refused:
        open_frames(wrong)
    assert str(wrong) in str(refused.value)
    assert "stpl-unpacked" not in str(refused.value)


def test_a_bomb_is_refused_before_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(budget._limits, "pixels", 2**12)
    many = bytes(2**20)
    (tmp_path / "a.npy.gz").write_bytes(gzip.compress(many))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("b.npy", many)
    for name in ("a.npy.gz", "b.zip"):
        with pytest.raises(FrameError, match="holds more than"):
            open_frames(tmp_path / name)


def test_names_that_leave_the_folder_are_not_followed(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("../../escaped.npy", b"x")
        out.writestr("/tmp/escaped.npy", b"x")
    with pytest.raises(FrameError, match="holds"):
        open_frames(archive)
    assert not (tmp_path.parent / "escaped.npy").exists()
