"""Pictures, GeoTIFF and films as cameras and services write them; expected: GDAL, OpenCV."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")
cv2 = pytest.importorskip("cv2")
rasterio = pytest.importorskip("rasterio")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("xarray")

from stpl_core.errors import FrameError  # noqa: E402
from stpl_core.reader import NO_DATA  # noqa: E402
from stpl_core.readers.images import grey_picture, rgb_picture  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from tests.core.readers.films import film, with_matrix  # noqa: E402

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
FINE = np.arange(48).reshape(6, 8) * 3 + 30000
SEEN = GREY >= 50


def gdal(path: Path) -> tuple[Any, Any]:
    """Bands and the mask of the file, by GDAL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path) as file:
            return file.read(), file.dataset_mask() > 0


def png(path: Path, kind: int, bands: list[Any], clear: int | None = None) -> Path:
    """A PNG of 16 bits: grey 0, colours 2, grey or colours with opacity 4 and 6."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    stack = np.stack(bands, axis=-1).astype(">u2")
    height, width = stack.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in stack)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (b"" if clear is None else chunk(b"tRNS", struct.pack(">H", clear)))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("kind", [0, 2, 4, 6])
def test_sixteen_bits_in_every_kind_of_png(tmp_path: Path, kind: int) -> None:
    """Of several bands Pillow would keep 8 bits: 200 of 65535 would be 0."""
    opacity = [np.where(SEEN, 65535, 0)] if kind in (4, 6) else []
    bands = [FINE, FINE + 7, FINE + 9] if kind in (2, 6) else [FINE]
    path = png(tmp_path / "a.png", kind, bands + opacity, 30000 if kind == 0 else None)
    numbers, seen = gdal(path)
    assert seen.all() == (kind == 2)
    colours = rgb_picture(path)
    for ours, theirs in zip(
        colours, numbers[:3] if kind in (2, 6) else numbers[[0] * 3], strict=True
    ):
        np.testing.assert_allclose(ours, np.where(seen, theirs / 65535, np.nan), rtol=1e-6)
    weights = [0.299, 0.587, 0.114]
    luma = np.tensordot(weights, numbers[:3], 1) if kind in (2, 6) else numbers[0]
    np.testing.assert_allclose(grey_picture(path), np.where(seen, luma / 65535, np.nan), rtol=1e-6)


def test_the_turn_of_a_camera_in_sixteen_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = tmp_path / "plain.png"
    Image.fromarray(GREY).save(plain, exif=exif)
    with Image.open(plain) as stored:
        chunk = stored.info["exif"]
    wide = png(tmp_path / "wide.png", 4, [GREY.astype(int) * 257, np.full(GREY.shape, 65535)])
    content = wide.read_bytes()
    body = b"eXIf" + chunk.removeprefix(b"Exif\0\0")
    made = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    wide.write_bytes(content[:33] + made + content[33:])
    np.testing.assert_allclose(grey_picture(wide), grey_picture(plain), rtol=1e-6)


@pytest.mark.parametrize("kind", ["L", "P", "RGB", "LA", "RGBA"])
def test_transparency_as_gdal(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    made, facts = Image.fromarray(GREY).convert("L" if kind == "LA" else kind), {}
    if kind in ("LA", "RGBA"):
        made.putalpha(Image.fromarray(np.where(SEEN, 255, 0).astype(np.uint8)))
    else:
        facts = {
            "transparency": {"L": 100, "P": bytes([0] * 50 + [255] * 206)}.get(kind, (5, 5, 5))
        }
    made.save(path, **facts)
    with Image.open(path) as stored:
        opaque = np.asarray(stored.convert("RGBA"))[..., 3] > 0
    found = grey_picture(path)
    np.testing.assert_array_equal(np.isnan(found), ~opaque)
    assert 0 < np.isnan(found).sum() < 20


def animation(path: Path) -> Path:
    pictures = [Image.fromarray(np.tile(np.roll(GREY, k, 1), (6, 6))) for k in range(3)]
    facts = {"lossless": True} if path.suffix == ".webp" else {}
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=[100, 200, 300], **facts
    )
    return path


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg to follow the message with")
@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.webp"])
def test_animations_are_refused_with_a_way_that_keeps_their_delays(
    tmp_path: Path, name: str
) -> None:
    animation(tmp_path / name)
    if name == "a.webp":  # first to PNG, as the message says
        with pytest.raises(FrameError) as first:
            open_frames(tmp_path / name)
        command = first.value.fix.replace("python", sys.executable, 1)
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
        name = "a.png"
    with pytest.raises(FrameError) as refused:
        open_frames(tmp_path / name)
    command = refused.value.fix.partition(",")[0].split()
    subprocess.run([*command[:1], "-loglevel", "error", *command[1:]], cwd=tmp_path, check=True)
    times = open_frames(tmp_path / "film.mkv")["time"].values
    np.testing.assert_array_equal(np.diff(times) / np.timedelta64(1, "ms"), [100, 200])


def tiff(path: Path, bands: Any, **facts: Any) -> Path:
    """Of 1 band or more; `facts` are set on the open dataset, `tags` as tags of the file."""
    stack = np.asarray(bands)
    profile = {"driver": "GTiff", "height": stack.shape[1], "width": stack.shape[2]}
    place = {"crs": "EPSG:4326", "transform": rasterio.Affine(0.01, 0, 5, 0, -0.01, 55)}
    with rasterio.open(path, "w", count=len(stack), dtype=stack.dtype, **profile, **place) as file:
        file.write(stack)
        file.update_tags(**facts.pop("tags", {}))
        for n, tags in enumerate(facts.pop("band_tags", []), 1):
            file.update_tags(n, **tags)
        for key, value in facts.items():
            setattr(file, key, value)
    return path


RAIN = np.abs(GREY.astype(np.float32))[None] / 10


@pytest.mark.parametrize(
    ("bands", "facts", "words"),
    [
        (RAIN, {"scales": (0.0,)}, "the scale 0"),
        (RAIN, {"scales": (np.nan,)}, "the scale nan"),
        (RAIN, {"offsets": (np.inf,)}, "the offset inf"),
        (RAIN.astype("complex64"), {}, "complex numbers"),
        (np.repeat(RAIN, 2, 0), {"units": ("mm/h", "dBZ")}, "dBZ and mm h-1"),
    ],
)
def test_bands_that_make_no_values(tmp_path: Path, bands: Any, facts: Any, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        open_frames(tiff(tmp_path / "rain_202406011200.tif", bands, **facts))


def test_bands_are_times_also_without_marks(tmp_path: Path) -> None:
    names = ("202406011200", "20240601T120500Z")
    path = tiff(tmp_path / "rain.tif", np.repeat(RAIN, 2, 0), descriptions=names)
    opened = open_frames(path)
    assert opened["frames"].shape == (2, 1, 6, 8)
    assert [str(t)[11:16] for t in opened["time"].values] == ["12:00", "12:05"]


def test_the_unit_that_gdal_takes_over_from_netcdf(tmp_path: Path) -> None:
    made = tiff(tmp_path / "rain_202406011200.tif", RAIN, band_tags=[{"units": "mm/5min"}])
    np.testing.assert_allclose(open_frames(made)["frames"].values[0, 0], RAIN[0] * 12, rtol=1e-6)


@pytest.mark.parametrize("text", ["2024:06:01 12:05:00", "2024-06-01T12:05:00+02:00"])
def test_the_date_of_a_tiff(tmp_path: Path, text: str) -> None:
    made = tiff(tmp_path / "rain.tif", RAIN, tags={"TIFFTAG_DATETIME": text})
    if "+" in text:
        with pytest.raises(FrameError, match=r"no time of UTC, but 2024-06-01T12:05:00\+02:00"):
            open_frames(made)
        return
    assert str(open_frames(made)["time"].values[0])[:16] == "2024-06-01T12:05"


def test_pages_are_not_left_out(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.roll(GREY, k, 1)) for k in range(3)]
    path = tmp_path / "rain_202406011200.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(FrameError, match="holds 3 pages"):
        open_frames(path)


def by_opencv(path: Path) -> list[Any]:
    reader = cv2.VideoCapture(str(path))
    pictures = []
    while (read := reader.read())[0]:
        pictures.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY))
    return pictures


def seconds(path: Path) -> tuple[Any, Any]:
    """Our times and those of the container, from the first on."""
    ours = open_frames(path)["time"].values
    with av.open(str(path)) as container:
        theirs = np.array([float(one.time) for one in container.decode(video=0)])
    return (ours - ours[0]) / np.timedelta64(1, "s"), theirs - theirs[0]


WRAPPED = [(2**33 - 18_000 + 9000 * k) / 90_000 for k in range(6)]


@pytest.mark.parametrize(
    ("name", "times", "base"),
    [
        ("late.mp4", [5.0, 5.1, 5.2, 5.3], Fraction(1, 1000)),
        ("early.mkv", [-0.2, -0.1, 0.0, 0.1], Fraction(1, 1000)),
        ("hours.mp4", [0.0, 3600.0, 7200.0], Fraction(1, 1000)),
        ("plain.ts", [0.0, 0.1, 0.2, 0.5], Fraction(1, 90_000)),
        ("wrapped.ts", WRAPPED, Fraction(1, 90_000)),  # its clock starts again after 26 hours
        ("cam.m2ts", [0.0, 0.1, 0.2], Fraction(1, 90_000)),
    ],
)
def test_clocks_of_films(tmp_path: Path, name: str, times: list[float], base: Fraction) -> None:
    ours, theirs = seconds(film(tmp_path / name, times, base=base))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(ours, np.array(times) - times[0], atol=1e-3)


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_turned_films_as_opencv(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = with_matrix(film(tmp_path / "a.mp4", [0.0, 0.1, 0.2]), *matrix)
    ours = open_frames(path)["frames"].values[:, 0]
    theirs = np.stack(by_opencv(path)) / 255
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_films_of_sixteen_bits_of_grey(tmp_path: Path) -> None:
    """As thermal cameras write them."""
    stored = np.tile(FINE.astype(np.uint16), (8, 8))
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = *stored.shape, "gray16le"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="gray16le")))
        container.mux(stream.encode(None))
    opened = open_frames(path)
    np.testing.assert_allclose(opened["frames"].values[0, 0], stored / 65535, rtol=1e-6)
    assert not (opened["state"].values == NO_DATA).any()
