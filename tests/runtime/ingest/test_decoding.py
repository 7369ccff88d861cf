"""Files and messages of every format as frames: values, time, mask, grid; against the readers."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpl_core.codec import FrameCodec
from stpl_core.errors import FrameError, UsageError
from stpl_core.readers.fit import Fit
from stpl_runtime.ingest.decoding import Decoder
from stpl_runtime.source import SourceSpec
from tests.runtime.conftest import picture, slot_time

GREY = SourceSpec((1, 16, 16), FrameCodec())
RAIN = FrameCodec(quantity="rain rate", units="mm h-1", low=0.0, high=300.0, clip=True)
RADAR = Path(__file__).parents[3].parent / "shared" / "data" / "radar"
KNOWN = datetime(2026, 3, 1, tzinfo=timezone.utc)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def encoded(array: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def test_bytes_under_a_name_without_an_end_are_known_by_their_first_bytes() -> None:
    (frame,) = Decoder(GREY).from_bytes(npy(picture(1)), "radar/frames", KNOWN)
    np.testing.assert_array_equal(frame.data, picture(1))
    assert frame.valid_time == KNOWN
    assert frame.mask is None
    with pytest.raises(FrameError, match="frames"):
        Decoder(GREY).from_bytes(b"no such thing", "radar/frames", KNOWN)


def test_whose_time_counts(tmp_path: Path) -> None:
    """A date in the name, what the source knows, an index; what the user stated before all."""
    content = npy(picture(0))
    name = f"x_{slot_time(3):%Y%m%d%H%M}.npy"
    assert Decoder(GREY).from_bytes(content, name, KNOWN)[0].valid_time == slot_time(3)
    assert Decoder(GREY).from_bytes(content, "cam1.npy", KNOWN)[0].valid_time == KNOWN
    with pytest.raises(UsageError, match="--cadence"):
        Decoder(GREY).from_bytes(content, "cam1.npy")
    mtime = SourceSpec((1, 16, 16), FrameCodec(), mtime=True)
    assert Decoder(mtime).from_bytes(content, name, KNOWN)[0].valid_time == KNOWN
    stated = SourceSpec((1, 16, 16), FrameCodec(), time_format="%d.%m.%Y")
    (frame,) = Decoder(stated).from_bytes(content, f"01.02.2026_{name}", KNOWN)
    assert frame.valid_time == datetime(2026, 2, 1, tzinfo=timezone.utc)
    with pytest.raises(FrameError, match="holds no time"):
        Decoder(stated).from_bytes(content, name, KNOWN)


def test_a_stated_size_is_refused_or_averaged_down_as_asked() -> None:
    big = np.random.default_rng(1).random((48, 32), np.float32)
    content = npy(big)
    with pytest.raises(FrameError, match=r"\(1, 48, 32\)"):
        Decoder(GREY).from_bytes(content, "a", KNOWN)
    (whole,) = Decoder(GREY, "area").from_bytes(content, "a", KNOWN)
    mean = big.reshape(16, 3, 16, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(whole.data[0], mean, rtol=0, atol=1e-6)
    (middle,) = Decoder(GREY, "crop").from_bytes(content, "a", KNOWN)
    mean = big[8:40].reshape(16, 2, 16, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(middle.data[0], mean, rtol=0, atol=1e-6)
    assert middle.grid is not None
    assert middle.grid.affine == (0.0, 8.0, 2.0, 2.0)
    trained = SourceSpec((1, 16, 16), FrameCodec(), fit=Fit(crop=(4, 8, 16, 16)))
    (cut,) = Decoder(trained, "area").from_bytes(content, "a", KNOWN)
    np.testing.assert_array_equal(cut.data[0], big[4:20, 8:24])
    with pytest.raises(FrameError, match="at least the model's 16x16"):
        Decoder(GREY, "area").from_bytes(npy(big[:8]), "a", KNOWN)


def test_reflectivity_is_averaged_as_rain() -> None:
    codec = FrameCodec(quantity="reflectivity", units="dBZ", low=0.0, high=60.0, no_rain=-32.0)
    dbz = np.full((4, 4), -32.0, np.float32)
    dbz[0, 0] = 40.0
    spec = SourceSpec((1, 2, 2), codec)
    (frame,) = Decoder(spec, "area").from_bytes(npy(dbz), "a", KNOWN)
    rate = (10 ** (40 / 10) / 200) ** (1 / 1.6) / 4
    expected = [[10 * np.log10(200 * rate**1.6), -32.0], [-32.0, -32.0]]
    np.testing.assert_allclose(frame.data[0], expected, rtol=0, atol=1e-4)


def test_colour_pictures_for_grey_and_colour_models() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = np.stack([grey, grey[::-1], grey.T], axis=-1)
    luma = np.asarray(Image.fromarray(colour).convert("L"), np.float32)[None] / np.float32(255)
    rgb = SourceSpec((3, 16, 16), FrameCodec())
    for kind, slack in (("PNG", 0.0), ("BMP", 0.0), ("JPEG", 0.2)):
        content = encoded(colour, kind)
        (one,) = Decoder(GREY).from_bytes(content, "camera", KNOWN)
        (three,) = Decoder(rgb).from_bytes(content, "camera", KNOWN)
        assert np.abs(one.data - luma).mean() <= slack, kind
        assert np.abs(three.data - np.moveaxis(colour, -1, 0) / 255).mean() <= slack + 1e-7, kind


def test_many_frames_in_one_file_are_counted_from_its_time() -> None:
    stack = np.stack([picture(n) for n in range(3)])  # (T, C, H, W)
    buffer = io.BytesIO()
    np.savez(buffer, frames=stack)
    name = f"x_{slot_time(0):%Y%m%d%H%M}.npz"
    with pytest.raises(FrameError, match=r"says no times.*--cadence"):
        Decoder(GREY).from_bytes(buffer.getvalue(), name)
    spec = SourceSpec((1, 16, 16), FrameCodec(), cadence_s=300.0)
    frames = Decoder(spec).from_bytes(buffer.getvalue(), name)
    assert [frame.valid_time for frame in frames] == [slot_time(n) for n in range(3)]
    np.testing.assert_array_equal(np.stack([frame.data for frame in frames]), stack)


def test_netcdf_with_times_units_and_missing_pixels(tmp_path: Path) -> None:
    pytest.importorskip("netCDF4")
    xarray = pytest.importorskip("xarray")
    rain = np.random.default_rng(2).random((2, 16, 16)).astype(np.float32) * 5
    rain[:, :4, :4] = np.nan
    rain[:, 8:, 8:] = 0.0
    times = np.array([slot_time(n).replace(tzinfo=None) for n in range(2)], "datetime64[ns]")
    array = xarray.DataArray(
        rain,
        dims=("time", "y", "x"),
        coords={"time": times},
        attrs={"units": "mm/h", "standard_name": "rainfall_rate"},
    )
    path = tmp_path / "rain.nc"
    array.to_dataset(name="rain").to_netcdf(path)
    spec = SourceSpec((1, 16, 16), RAIN)
    frames = Decoder(spec).from_bytes(path.read_bytes(), "rain.nc")
    assert [frame.valid_time for frame in frames] == [slot_time(0), slot_time(1)]
    for n, frame in enumerate(frames):
        assert frame.mask is not None
        np.testing.assert_array_equal(frame.mask, ~np.isnan(rain[n]))
        np.testing.assert_array_equal(frame.data[0][frame.mask], rain[n][frame.mask])
        assert frame.standard_name == "rainfall_rate"
    with pytest.raises(FrameError, match=r"rain.nc.* is in mm h-1; expected K"):
        kelvin = FrameCodec(quantity="temperature", units="K", low=200.0, high=330.0)
        Decoder(SourceSpec((1, 16, 16), kelvin)).from_file(path)


FILES = (
    ("knmi_hdf5", "*/*.h5", "h5py"),
    ("opera_odyssey_hdf5", "*/*.hdf", "h5py"),
    ("fmi_pgm", "*/*.pgm.gz", "pyproj"),
)


# GeoTIFF and GRIB2 were seen equal too; theirs have 24 and 36 million pixels and take 40 s.
@pytest.mark.parametrize(("folder", "pattern", "library"), FILES)
def test_real_radar_files_as_predict_reads_them(folder: str, pattern: str, library: str) -> None:
    """Equal, bit for bit, to what `predict` gives the model for the same file."""
    pytest.importorskip(library)
    pytest.importorskip("xarray")
    from stpl_core.readers.opening import open_frames
    from stpl_runtime.ingest.archive import ArchiveSpec, read_archive

    files = sorted((RADAR / folder).glob(pattern)) if RADAR.is_dir() else []
    if not files:
        pytest.skip(f"no data in {RADAR / folder}")
    path = files[0]
    height, width = open_frames(path)["frames"].shape[2:]
    fit = Fit(crop=(0, 0, height // 32 * 32, width // 32 * 32), size=(32, 32))
    spec = SourceSpec((1, 32, 32), RAIN, fit=fit)
    context = read_archive(path, 1, spec, ArchiveSpec(fit=fit))
    (frame,) = Decoder(spec).from_bytes(path.read_bytes(), path.name)
    np.testing.assert_array_equal(frame.data, context.frames[0, 0])
    assert frame.valid_time == context.times[0]
    assert frame.grid == context.grid
    assert (frame.mask is None) == (context.observed is None)
    if frame.mask is not None and context.observed is not None:
        np.testing.assert_array_equal(frame.mask, context.observed)
    assert frame.notes == context.notes


def test_a_cut_file_says_its_name_and_not_where_it_lay(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    with pytest.raises(FrameError, match=r"^radar.h5 cannot be read as \w+: ") as caught:
        Decoder(GREY).from_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90), "radar.h5", KNOWN)
    assert "/" not in caught.value.found.partition(":")[0]


def test_a_geotiff_brings_its_time_mask_and_grid(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    values = np.random.default_rng(3).random((16, 16)).astype(np.float32)
    values[0] = -9.0
    path = tmp_path / f"rain_{slot_time(2):%Y%m%d%H%M}.tif"
    transform = rasterio.Affine(500.0, 0.0, 100_000.0, 0.0, -500.0, 200_000.0)
    size = {"height": 16, "width": 16, "count": 1, "dtype": "float32"}
    with rasterio.open(
        path, "w", "GTiff", crs="EPSG:3067", transform=transform, nodata=-9.0, **size
    ) as file:
        file.write(values, 1)
        file.units = ("mm/h",)
    (frame,) = Decoder(SourceSpec((1, 16, 16), RAIN)).from_bytes(path.read_bytes(), path.name)
    assert frame.mask is not None
    np.testing.assert_array_equal(frame.mask, values != -9.0)
    np.testing.assert_array_equal(frame.data[0, 1:], values[1:])
    assert frame.valid_time == slot_time(2)
    assert frame.grid is not None
    assert frame.grid.affine == (100_000.0, 200_000.0, 500.0, -500.0)
    assert "TM35FIN" in frame.grid.crs_wkt
    coarse = replace(frame.grid, affine=(100_000.0, 200_000.0, 1000.0, -1000.0))
    for trained, fine in ((frame.grid, True), (coarse, False)):
        spec = SourceSpec((1, 16, 16), RAIN, grids=(trained,))
        if fine:
            assert Decoder(spec).from_file(path)[0].grid == frame.grid
            continue
        with pytest.raises(
            FrameError, match=r"rain_\d+.tif has pixels of 0.5 x 0.5 km; expected 1"
        ):
            Decoder(spec).from_file(path)


def test_a_file_that_says_no_time_is_bad_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("netCDF4")
    xr = pytest.importorskip("xarray")
    pytest.importorskip("pyproj")
    path = tmp_path / "gap.nc"
    axes = {name: (name, 1e3 * np.arange(16.0), {"units": "m"}) for name in ("y", "x")}
    xr.Dataset(
        {"rain": (("time", "y", "x"), np.zeros((1, 16, 16), np.float32), {"units": "mm h-1"})},
        {"time": np.array(["NaT"], "datetime64[ns]"), **axes},
    ).to_netcdf(path)
    decoder = Decoder(SourceSpec((1, 16, 16), RAIN))
    with pytest.raises(FrameError, match="NaT"):
        decoder.from_file(path)
    monkeypatch.setattr(Decoder, "pieces", lambda *_: [][0])  # what nobody thought of
    with pytest.raises(FrameError, match=r"gap\.nc cannot be used: list index"):
        decoder.from_file(path)


@pytest.mark.parametrize(
    ("size", "fix"),
    [
        (
            (20, 24),
            "--grid 20x24 covers them in tiles, if all have this size, or --source-option resize=",
        ),
        ((12, 24), "frames of 16x16 pixels or more"),
    ],
)
def test_another_size_is_told_alike_of_every_kind(
    tmp_path: Path, size: tuple[int, int], fix: str
) -> None:
    xr = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4")
    array = np.zeros(size, np.float32)
    xr.Dataset(
        {"grey": (("time", "y", "x"), array[None], {"units": "1"})},
        coords={"time": [np.datetime64("2026-01-01", "ns")]},
    ).to_netcdf(tmp_path / "in.nc")
    Image.fromarray(array.astype(np.uint8)).save(tmp_path / "in.png")
    np.save(tmp_path / "in.npy", array + 7)  # out of range too: the size is reported
    reported = set()
    for suffix in (".nc", ".png", ".npy"):
        with pytest.raises(FrameError) as caught:
            Decoder(GREY).from_file(tmp_path / f"in{suffix}", KNOWN)
        reported.add(str(caught.value).replace(f"in{suffix}", "FILE"))
    assert len(reported) == 1, reported
    (line,) = reported
    assert line.startswith(f"FILE has frames of shape (1, {size[0]}, {size[1]}); expected (1, ")
    assert f"try: {fix}" in line


def test_another_number_of_channels_is_reported() -> None:
    with pytest.raises(FrameError, match=r"shape \(1, 16, 16\); .*try: frames with 3 channel"):
        Decoder(SourceSpec((3, 16, 16), FrameCodec())).from_bytes(
            npy(picture(0)[0]), "x.npy", KNOWN
        )


def test_no_room_for_a_moment_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content, before = npy(picture(0)), Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        before(self, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(FrameError, match=f"no room in {tmp_path}: No space left on device"):
            Decoder(GREY).from_bytes(content, "x.npy", KNOWN)
    assert list(tmp_path.iterdir()) == []
    assert len(Decoder(GREY).from_bytes(content, "x.npy", KNOWN)) == 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(FrameError, match="No such file or directory"):
        Decoder(GREY).from_bytes(content, "x.npy", KNOWN)
