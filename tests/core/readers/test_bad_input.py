"""What cannot be used is refused with the file's name: nothing is trained on garbage."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("xarray")

import xarray as xr
from PIL import Image

from stpl_core.errors import FrameError, MissingExtraError, UsageError
from stpl_core.grid import pixel_grid
from stpl_core.reader import Piece, Quantity, state_of
from stpl_core.readers import registry
from stpl_core.readers.opening import joined_pieces, open_frames
from stpl_core.readers.survey import Surveyor

DATA = Path(__file__).parents[3].parent / "shared" / "data"
RADAR = DATA / "radar"
KNMI = RADAR / "knmi_hdf5" / "201008"
FMI = RADAR / "fmi_pgm" / "20160928"

needs_files = pytest.mark.skipif(not RADAR.is_dir(), reason="no radar files in ../shared/data")
SHARES = (0.0, 0.3, 0.9, 0.999)

REAL = {
    "odim": ("h5py", "radar/opera_odyssey_hdf5/20180824/T_PAAH21_C_EUOC_20180824180000.hdf"),
    "knmi": ("h5py", "radar/knmi_hdf5/201008/RAD_NL25_RAP_5min_201008260000.h5"),
    "fmi_pgm": (
        "pyproj",
        "radar/fmi_pgm/20160928/201609281445_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz",
    ),
    "geotiff": ("rasterio", "radar/fmi_geotiff/20160928/201609281445_FINUTM.tif"),
    "mrms": ("eccodes", "radar/mrms_grib2/20190610/PrecipRate_00.00_20190610-000000.grib2"),
    "era5": ("eccodes", "weather_grid/era5-2mt-2019-03-uk.grib"),
    "video": ("av", "video/car-detection.mp4"),
}


def present(library: str) -> None:
    """Skip where a reader's library is not installed; eccodes must not be imported here."""
    import importlib.util

    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


def cut_is_refused(whole: Path, folder: Path) -> None:
    """Cut at 0, 30, 90 and 99.9 %: one FrameError each, which names the file."""
    content = whole.read_bytes()
    for share in SHARES:
        path = folder / f"cut{share}{''.join(whole.suffixes)}"
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(FrameError) as caught:
            open_frames(path)
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        path.unlink()


@needs_files
@pytest.mark.parametrize("word", list(REAL))
def test_cut_real_files(tmp_path: Path, word: str) -> None:
    library, name = REAL[word]
    present(library)
    cut_is_refused(DATA / name, tmp_path)


def some_frames() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (20, 6, 64, 64)).astype(np.uint8)


def write_netcdf(path: Path, form: str) -> None:
    present("netCDF4")
    times = np.datetime64("2024-01-01", "ns") + np.arange(6) * np.timedelta64(5, "m")
    rain = (("time", "y", "x"), some_frames()[0].astype(np.float32), {"units": "mm/h"})
    coordinates = {"time": times, "y": np.arange(64.0), "x": np.arange(64.0)}
    written = xr.Dataset({"rain": rain}, coords=coordinates)
    written.to_netcdf(path, format=form, engine="netcdf4", unlimited_dims=["time"])


def write_taxibj(path: Path) -> None:
    present("h5py")
    import h5py

    with h5py.File(path, "w") as file:
        file["data"] = some_frames()[:, :2, :32, :32].repeat(3, 0)[:48].astype(np.float64)
        file["date"] = np.array([f"20130701{slot:02}".encode() for slot in range(1, 49)])


def write_pgm(path: Path) -> None:
    header = "P5\n# obstime 201609281445\n# param CorrectedReflectivity\n# type stereographic\n"
    header += "# centrallongitude 25\n# centrallatitude 90\n# truelatitude 60\n"
    header += "# bottomleft 18.600000 57.930000\n# topright 34.903000 69.005000\n64 64\n255\n"
    path.write_bytes(header.encode() + some_frames()[0, 0].tobytes())


MADE: dict[str, Callable[[Path], Any]] = {
    "classic.nc": lambda path: write_netcdf(path, "NETCDF3_CLASSIC"),
    "offset64.nc": lambda path: write_netcdf(path, "NETCDF3_64BIT"),
    "netcdf4.nc": lambda path: write_netcdf(path, "NETCDF4"),
    "taxi.h5": write_taxibj,
    "fmi.pgm": write_pgm,
    "mnist.npy": lambda path: np.save(path, some_frames()),
    "plain.npy": lambda path: np.save(path, some_frames()[0] / 255),
    "plain.npz": lambda path: np.savez_compressed(path, frames=some_frames()[0]),
    "picture1.png": lambda path: Image.fromarray(some_frames()[0, 0]).save(path),
    "picture1.jpg": lambda path: Image.fromarray(some_frames()[0, 0]).save(path),
    "picture1.bmp": lambda path: Image.fromarray(some_frames()[0, 0]).save(path),
}


@pytest.mark.parametrize("name", list(MADE))
def test_cut_made_files(tmp_path: Path, name: str) -> None:
    whole = tmp_path / name
    MADE[name](whole)
    assert open_frames(whole).sizes["time"] > 0
    cut_is_refused(whole, tmp_path)


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "ffv1"), ("avi", "ffv1"), ("mp4", "mpeg4")])
def test_cut_videos(tmp_path: Path, suffix: str, codec: str) -> None:
    present("av")
    import av

    whole = tmp_path / f"a.{suffix}"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in some_frames()[:, 0]:
            made = av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    assert open_frames(whole).sizes["time"] == 20
    cut_is_refused(whole, tmp_path)


@needs_files
def test_a_cut_file_in_a_folder_is_named(tmp_path: Path) -> None:
    present("h5py")
    files = sorted(KNMI.iterdir())[:3]
    for file in files:
        shutil.copyfile(file, tmp_path / file.name)
    last = tmp_path / files[-1].name
    last.write_bytes(last.read_bytes()[:30_000])
    with pytest.raises(FrameError, match=last.name):
        open_frames(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FrameError, match=r"empty holds no file"):
        open_frames(tmp_path / "empty")
    with pytest.raises(FrameError, match=r"empty holds no file for the reader odim"):
        open_frames(tmp_path / "empty", reader="odim")
    with pytest.raises(FrameError, match=r"no file or folder .*nowhere"):
        open_frames(tmp_path / "nowhere")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".frame1.png.tmp").write_bytes(b"half")
    with pytest.raises(FrameError, match=r"hidden holds no file"):
        open_frames(tmp_path / "hidden")


def test_a_folder_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A superuser may read any, so the answer is put in the system's mouth."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(FrameError, match=r"Permission denied; expected a folder that this user"):
        open_frames(tmp_path)


def test_unknown_kinds_and_words(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("?")
    with pytest.raises(
        FrameError, match=r"a\.xyz ends in \.xyz; expected what one of these readers reads"
    ):
        open_frames(tmp_path / "a.xyz")
    with pytest.raises(
        FrameError, match=r"files that end in \.xyz; expected what one of these readers reads"
    ):
        open_frames(tmp_path)
    (tmp_path / "frame").write_text("<!DOCTYPE html>")  # as a web server answers with a page
    with pytest.raises(FrameError, match=r"frame is of no kind that is known; expected what"):
        open_frames(tmp_path / "frame")
    with pytest.raises(UsageError, match=r"no reader odin; .*--reader odim"):
        open_frames(tmp_path, reader="odin")
    np.save(tmp_path / "b.npy", np.zeros((2, 3, 3)))
    (tmp_path / "c.tif").write_bytes(b"II*\0")
    with pytest.raises(FrameError, match=r"holds files for the readers .*expected files of one"):
        open_frames(tmp_path)
    assert open_frames(tmp_path, reader="arrays").sizes["time"] == 2


def test_hdf5_that_nobody_knows(tmp_path: Path) -> None:
    present("h5py")
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["something"] = np.zeros(3)
    with pytest.raises(
        FrameError,
        match=r"a\.h5 is not what odim or knmi or netcdf or taxibj read: it holds something",
    ):
        open_frames(tmp_path / "a.h5")


def dated(folder: Path, minute: int, frame: np.ndarray, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"rain_2024010100{minute:02}.npz"
    np.savez(path, frames=frame, **more)
    return path


def test_mixed_sizes_units_and_times_are_named(tmp_path: Path) -> None:
    frame = np.zeros((4, 5))
    dated(tmp_path / "size", 0, frame)
    odd = dated(tmp_path / "size", 5, np.zeros((5, 4)))
    with pytest.raises(FrameError, match=rf"{odd.name} has frames of .*\(1, 5, 4\).*\(1, 4, 5\)"):
        open_frames(tmp_path / "size")
    dated(tmp_path / "units", 0, frame, units="mm/h")
    odd = dated(tmp_path / "units", 5, frame, units="dBZ")
    with pytest.raises(FrameError, match=rf"{odd.name} has units dBZ; expected mm h-1"):
        open_frames(tmp_path / "units")
    with pytest.raises(FrameError, match=r"is in mm h-1; expected K"):
        open_frames(tmp_path / "units", units="K")
    two = np.zeros((2, 4, 5))
    stamps = np.array([0, 300])
    dated(tmp_path / "twice", 0, two, time=stamps)
    odd = dated(tmp_path / "twice", 5, two, time=stamps + 300)
    with pytest.raises(FrameError, match=rf"{odd.name} has a frame of 1970-01-01T00:05:00; .*once"):
        open_frames(tmp_path / "twice")


def test_a_picture_of_another_size_is_named(tmp_path: Path) -> None:
    for n, size in ((1, (6, 5)), (2, (6, 5)), (3, (5, 5))):
        Image.new("L", size).save(tmp_path / f"{n}.png")
    with pytest.raises(FrameError, match=r"3\.png has frames of .*1\.png"):
        open_frames(tmp_path)


@needs_files
def test_two_grids_in_one_folder(tmp_path: Path) -> None:
    present("pyproj")
    import gzip

    first, second = sorted(FMI.iterdir())[:2]
    content = gzip.decompress(second.read_bytes())
    (tmp_path / first.name).write_bytes(first.read_bytes())
    moved = content.replace(b"bottomleft 18.600000", b"bottomleft 18.700000")
    (tmp_path / second.name).write_bytes(gzip.compress(moved, 1))
    with pytest.raises(FrameError, match=rf"{second.name} lies on a grid with the corners"):
        open_frames(tmp_path)


def test_gaps_odd_steps_and_empty_frames_are_found(tmp_path: Path) -> None:
    """Not refused when reading: reported with the file, for the windows to step over."""
    for minute in (0, 5, 10, 15, 30, 36, 40):
        value = np.nan if minute == 10 else minute
        dated(tmp_path, minute, np.full((3, 3), value))
    surveyor = Surveyor()
    for part, files in joined_pieces(tmp_path):
        surveyor.add(part, files)
    survey = surveyor.survey()
    assert survey.cadence_s == 300
    (gap,) = survey.gaps
    assert (gap.after, gap.missing) == ("2024-01-01T00:15:00Z", 2)
    assert gap.file.endswith("rain_202401010030.npz")
    assert survey.off_cadence == []  # six and four minutes are within a quarter of five
    (empty,) = survey.empty
    assert "rain_202401010010.npz (2024-01-01T00:10:00Z)" in empty
    assert (survey.low, survey.high) == (0, 40)
    assert survey.share["no_data"] == pytest.approx(1 / 7)


def test_a_polar_volume_is_refused(tmp_path: Path) -> None:
    present("h5py")
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("what").attrs["object"] = "PVOL"
        file.create_group("dataset1/what")
    with pytest.raises(FrameError, match=r"ODIM file of the kind PVOL; expected a composite"):
        open_frames(tmp_path / "a.h5")


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stpl-deploy\[geotiff\]'"):
        open_frames(tmp_path / "a.tif")


def test_a_reader_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By entry point: found by suffix and by word; errors of its decoder name the file."""
    module = ModuleType("their_reader")

    def read(path: Path, options: Any) -> Any:
        levels = np.frombuffer(zlib.decompress(path.read_bytes()), np.uint8).astype(np.float32)
        frames = levels.reshape(1, 1, 2, 2)
        quantity = Quantity("snow depth", "cm")
        yield Piece(frames, state_of(frames), pixel_grid(2, 2), quantity, str(path))

    # A module made at run time: the type checker knows none of its names.
    module.read, module.SUFFIXES, module.ABOUT = read, (".snow",), "snow"  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "their_reader", module)
    point = EntryPoint("snow", "their_reader", registry.GROUP)

    monkeypatch.setattr(registry, "_installed", lambda: (point,))
    (tmp_path / "a.snow").write_bytes(zlib.compress(bytes([1, 2, 3, 4])))
    dataset = open_frames(tmp_path / "a.snow")
    assert dataset["frames"].values.ravel().tolist() == [1, 2, 3, 4]
    assert dataset["frames"].attrs["units"] == "cm"
    (tmp_path / "b.snow").write_bytes(b"not deflated")
    with pytest.raises(FrameError, match=r"b\.snow cannot be read as snow"):
        open_frames(tmp_path / "b.snow", reader="snow")
