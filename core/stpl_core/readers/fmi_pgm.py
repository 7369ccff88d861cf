"""FMI's radar composites as PGM pictures with comments, plain or gzipped.

dBZ = DN / 2 - 32; 0 is no echo; the number after the size is what is missing. The false origin of
the projection is not in the file; this is FMI's, as pysteps has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, ReadOptions
from stpl_core.readers.names import file_time
from stpl_core.readers.projections import project, wkt_of
from stpl_core.readers.stamps import time_in_name
from stpl_core.readers.units import reflectivity
from stpl_core.safety.budget import check_pixels, open_unpacked, read_within

SUFFIXES = (".pgm", ".pgm.gz")
ABOUT = "FMI radar composites, PGM or PGM.gz"
_GAIN, _OFFSET = 0.5, -32.0
_ZR = (223.0, 1.53)


def recognises(path: Path) -> bool:
    """Whether its comments are FMI's."""
    if not path.is_file():
        return False
    with open_unpacked(path) as file:
        return b"# obstime" in file.read(4096)


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the one frame of a picture."""
    with open_unpacked(path) as file:
        content = read_within(file, path)
    header, stored, missing = _parse(content, path)
    if header.get("param", "") != "CorrectedReflectivity":
        raise FrameError(
            f"{path} has the comment param {header.get('param', 'nowhere')!r}",
            expected="FMI's CorrectedReflectivity",
            fix="--reader pictures if it is a plain picture",
        )
    state = np.full(stored.shape, VALUE, np.uint8)
    state[stored == 0] = NO_ECHO
    state[stored == missing] = NO_DATA
    frame = stored.astype(np.float32) * np.float32(_GAIN) + np.float32(_OFFSET)
    frame[state == NO_DATA] = np.nan
    written = header.get("obstime")
    stamp = file_time(path, options) if written is None else time_in_name(written)
    if stamp is None:
        raise FrameError(
            f"{path} has the obstime {written!r}" if written else f"{path} says no time",
            expected="# obstime YYYYMMDDHHMM",
            fix="repair the file, or --time-format PATTERN for the time in its name",
        )
    yield Piece(
        frames=frame[None, None],  # (1, 1, H, W)
        state=state[None],
        grid=_grid(header, stored.shape, path),
        quantity=reflectivity(_ZR),
        source=str(path),
        time=np.array([stamp]),
        notes={"institution": "Finnish Meteorological Institute"},
    )


def _parse(content: bytes, path: Path) -> tuple[dict[str, str], NDArray[np.uint8], int]:
    """Comments by their first word, pixels `(H, W)`, and the greatest value, which is missing."""
    if not content.startswith(b"P5"):
        raise FrameError(f"{path} is not a binary PGM", expected="P5", fix="check the file")
    header: dict[str, str] = {}
    numbers: list[int] = []
    place = 2
    while len(numbers) < 3:
        end = content.find(b"\n", place)
        if end < 0:
            raise EOFError("it ends inside the header")
        line = content[place:end].decode("latin-1").strip()
        place = end + 1
        if line.startswith("#"):
            key, _, value = line[1:].strip().partition(" ")
            header.setdefault(key, value.strip())
        else:
            numbers += [int(word) for word in line.split()]
    width, height, most = numbers
    if not 0 < most < 256:
        raise FrameError(
            f"{path} has the greatest value {most}",
            expected="FMI's 8 bits (255)",
            fix="--reader pictures if it is a plain picture",
        )
    check_pixels(path, width, height)
    if len(content) - place < width * height:
        raise EOFError(f"{width * height - len(content) + place} bytes of the picture are missing")
    pixels = np.frombuffer(content, np.uint8, width * height, place).reshape(height, width)
    return header, pixels, most


def _grid(header: dict[str, str], shape: tuple[int, ...], path: Path) -> Grid:
    if header.get("type") != "stereographic":
        raise FrameError(
            f"{path} has the projection {header.get('type', 'none')}",
            expected="stereographic",
            fix="ask FMI for the other product",
        )
    projection = (
        f"+proj=stere +lat_0={header['centrallatitude']} +lon_0={header['centrallongitude']} "
        f"+lat_ts={header['truelatitude']} +R=6371288 +x_0=380886.310 +y_0=3395677.920 "
        "+units=m +type=crs"
    )
    west, south = (float(word) for word in header["bottomleft"].split())
    east, north = (float(word) for word in header["topright"].split())
    left, bottom = project(projection, west, south, str(path))
    right, top = project(projection, east, north, str(path))
    height, width = shape
    affine = (left, top, (right - left) / width, (bottom - top) / height)
    return Grid(affine, height, width, wkt_of(projection, str(path)))
