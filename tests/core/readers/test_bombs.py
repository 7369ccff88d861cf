"""Files of a few kilobytes that claim gigabytes: refused in one line, before memory is taken."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stpl_core.errors import FrameError
from stpl_core.frames import read_array
from stpl_core.readers.images import grey_picture
from stpl_core.readers.libraries import decoding
from stpl_core.readers.npz import open_npz
from stpl_core.safety import budget

SIDE = 30_000


def png(path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    lines = zlib.compress(bytes(2**20), 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    )


def bmp(path: Path) -> None:
    head = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 1, 4, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 100, 0, 0, 1078) + head + bytes(1100))


def pgm(path: Path) -> None:
    path.write_bytes(f"P5\n{SIDE} {SIDE}\n255\n".encode() + bytes(100))


def npz(path: Path) -> None:
    """Zeros, packed a thousandfold."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": (2**28,)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("frames.npy", "w") as member,
    ):
        member.write(buffer.getvalue())
        for _ in range(2**8):
            member.write(bytes(2**20))


def npz_header(path: Path) -> None:
    """A header that states more than there is."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("frames.npy", buffer.getvalue() + bytes(8))


def zipped(path: Path) -> None:
    with gzip.open(path, "wb", 1) as file:
        for _ in range(2**9):
            file.write(bytes(2**20))


BOMBS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "a.png": (png, grey_picture),
    "b.png": (png, read_array),
    "a.bmp": (bmp, grey_picture),
    "a.pgm": (pgm, grey_picture),
    "a.npz": (npz, read_array),
    "b.npz": (npz_header, read_array),
}


@pytest.fixture
def small() -> Iterator[None]:
    budget.set_most_pixels(2**24)
    yield
    budget.set_most_pixels(None)


@pytest.mark.parametrize("name", BOMBS)
def test_a_claim_is_refused_before_memory_is_taken(tmp_path: Path, small: None, name: str) -> None:
    make, read = BOMBS[name]
    path = tmp_path / name
    make(path)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(FrameError), decoding(path, "test"):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**23


def test_unpacking_stops_at_the_budget(tmp_path: Path, small: None) -> None:
    path = tmp_path / "rain.pgm.gz"
    zipped(path)
    with pytest.raises(FrameError, match="more than 134,217,728 bytes"):
        budget.gunzipped(path.read_bytes(), "a message")
    with (
        budget.open_unpacked(path) as file,
        pytest.raises(FrameError, match="--max-pixels"),
    ):
        budget.copy_within(file, io.BytesIO(), path)


def test_what_is_within_the_budget_is_read(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3 * 2**20)
    assert budget.gunzipped(gzip.compress(content[: 2**20]) * 2, "x") == content[: 2**20] * 2
    np.savez_compressed(tmp_path / "a.npz", frames=np.zeros((4, 1, 64, 64), np.float32))
    assert read_array(tmp_path / "a.npz").shape == (4, 1, 64, 64)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_npz_is_a_value_error(tmp_path: Path, seed: int) -> None:
    """Whatever numpy and zipfile make of it."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, frames=np.arange(64.0).reshape(1, 8, 8), time=np.arange(3))
    content = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    for place in generator.integers(0, len(content), 3):
        content[place] = generator.integers(256)
    path.write_bytes(content)
    try:
        with open_npz(path) as archive:
            for name in archive.files:
                assert archive[name] is not None
    except (ValueError, OSError, EOFError, KeyError, FrameError):
        pass


def test_limits_follow_the_grid() -> None:
    assert budget.pixels_for(1, 64, 64) == budget.LEAST_LIMIT
    assert budget.pixels_for(1, 4000, 4000) == 16 * 4000 * 4000
