"""MeteoNet's radar archives (Météo-France, .npz): `data`, `dates` and `miss_dates`.

What the numbers mean follows from the name, as MeteoNet documents it. The dates are pickled Python
objects; they are taken out of the bytes, nothing is unpickled. `radar_coords_<zone>.npz` beside the
files gives the grid.
"""

from __future__ import annotations

import pickletools  # nosec B403
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.grid import Grid, pixel_grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions, Times
from stpl_core.readers.npz import open_npz
from stpl_core.readers.placing import Flips, placed, turned
from stpl_core.readers.projections import crs_of
from stpl_core.readers.units import rain_amount, reflectivity

SUFFIXES = (".npz",)
ABOUT = "MeteoNet .npz: rainfall, reflectivity_old, reflectivity_new"
_BLOCK_VALUES = 2**23
_MOST_BYTES = 2**24
"""Of pickled dates: 11 days have 3168 of 30 bytes."""
_STEP_S = 300.0
_ZR = (200.0, 1.6)


@dataclass(frozen=True)
class _Coding:
    scale: float
    no_data: int
    no_echo: int
    quantity: Quantity


_CODINGS = {
    "rainfall": _Coding(0.01, -1, 0, rain_amount(_STEP_S)),
    "reflectivity_old": _Coding(1.0, 255, 0, reflectivity(_ZR)),
    "reflectivity_new": _Coding(0.1, -200, -100, reflectivity(_ZR)),
}


def recognises(path: Path) -> bool:
    """Whether it has MeteoNet's arrays, or is the file of the places."""
    if not path.is_file():
        return False
    with open_npz(path) as archive:
        names = set(archive.files)
    return {"data", "dates", "miss_dates"} <= names or _is_of_places(path, names)


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frames in blocks; none of the file of the places."""
    with open_npz(path) as archive:
        if _is_of_places(path, set(archive.files)):
            return
        coding = _coding(path)
        stored = archive["data"]  # (T, H, W)
        times = _dates(path, len(stored))
        grid, flips = _grid(path, stored.shape[1:])
    block = max(1, _BLOCK_VALUES // max(1, int(np.prod(stored.shape[1:]))))
    for start in range(0, len(stored), block):
        part = stored[start : start + block]
        state = np.full(part.shape, VALUE, np.uint8)
        state[part == coding.no_echo] = NO_ECHO
        state[part == coding.no_data] = NO_DATA
        frames = (part * coding.scale).astype(np.float32)
        frames[state == NO_ECHO] = coding.quantity.no_echo
        frames[state == NO_DATA] = np.nan
        piece = Piece(
            frames=frames[:, None],  # (n, 1, H, W)
            state=state,
            grid=grid,
            quantity=coding.quantity,
            source=str(path),
            time=times[start : start + block],
            notes={"institution": "Météo-France"},
        )
        yield turned(piece, flips)


def _is_of_places(path: Path, names: set[str]) -> bool:
    return path.name.startswith("radar_coords") and {"lats", "lons"} <= names


def _coding(path: Path) -> _Coding:
    name = path.name.lower().replace("-", "_")
    kinds = [kind for kind in _CODINGS if name.startswith(kind)]
    if len(kinds) != 1 or "quality" in name:
        raise FrameError(
            f"{path} has MeteoNet's arrays, and its name says not what they are",
            expected=f"a name that begins with {', '.join(_CODINGS)}",
            fix="the name that MeteoNet gave it",
        )
    return _CODINGS[kinds[0]]


def _dates(path: Path, count: int) -> Times:
    """The dates as they stand in the pickle: ten bytes after each mention of a datetime."""
    with zipfile.ZipFile(path) as archive, archive.open("dates.npy") as stream:
        version = npy.read_magic(stream)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        _, _, dtype = header(stream)
        content = stream.read(_MOST_BYTES + 1)
    if dtype.kind == "M":
        with open_npz(path) as archive:
            return np.asarray(archive["dates"], "datetime64[ns]")
    found = [_date(part) for part in _of_ten_bytes(content)]
    if len(content) > _MOST_BYTES or len(found) != count or None in found:
        raise FrameError(
            f"{path} has {len(found)} dates that are read for {count} frames",
            expected="one for each",
            fix="the file as MeteoNet wrote it",
        )
    return np.array(found, "datetime64[ns]")


def _of_ten_bytes(content: bytes) -> Iterator[bytes]:
    """Bytes of dates in a pickle, looked at operation by operation: none is carried out."""
    for operation, argument, _ in pickletools.genops(content):
        if isinstance(argument, bytes) and len(argument) == 10:
            yield argument
        elif operation.name.endswith("UNICODE") and len(str(argument)) == 10:
            text = str(argument)  # of Python 2
            if max(map(ord, text)) < 256:
                yield text.encode("latin-1")


def _date(part: bytes) -> np.datetime64 | None:
    """Year, month, day, hour, minute, second and microsecond of Python's own ten bytes."""
    year, (month, day, hour, minute, second) = int.from_bytes(part[:2], "big"), part[2:7]
    text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    if not re.fullmatch(r"(19|20)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d", text):
        return None
    try:
        return np.datetime64(text, "ns")
    except ValueError:
        return None


def _grid(path: Path, shape: tuple[int, ...]) -> tuple[Grid, Flips]:
    """By the places beside the file, or in a folder above."""
    height, width = shape
    zone = re.search(r"[_-](NW|SE)[_-]", path.name)
    named = f"radar_coords_{zone[1]}.npz" if zone else "radar_coords*.npz"
    folders = (path.parent, *path.absolute().parents[1:3])
    beside = next((file for folder in folders for file in sorted(folder.glob(named))), None)
    if beside is None:
        return pixel_grid(height, width), (slice(None), slice(None))
    with open_npz(beside) as archive:
        lat, lon = (_line(archive[name], axis) for name, axis in (("lats", 0), ("lons", 1)))
    if (len(lat), len(lon)) != (height, width):
        raise FrameError(
            f"{beside} has the places of {len(lat)}x{len(lon)} pixels",
            expected=f"{height}x{width}, as {path.name}",
            fix="the places of the same zone",
        )
    steps = [(line[-1] - line[0]) / (len(line) - 1) for line in (lon, lat)]
    affine = (lon[0] - steps[0] / 2, lat[0] - steps[1] / 2, steps[0], steps[1])
    return placed(affine, height, width, crs_of("OGC:CRS84", str(beside)))


def _line(places: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """Places along rows (0) or columns (1), of one line or of every pixel."""
    line = places if places.ndim == 1 else places[:, 0] if axis == 0 else places[0]
    return np.asarray(line, np.float64)
