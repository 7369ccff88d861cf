"""RADOLAN and RADVOR composites of DWD in their own binary format.

A line of text up to the byte 3, then a value of two bytes (little-endian, rows from the south) for
each pixel: 12 bits of number, then flags for a secondary source, no data, a negative sign and
clutter. Reflectivity of the older products has one byte. After DWD's format description; where the
grids lie is given by the corner at 9 E, 51 N and the size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError, UsageError
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions
from stpl_core.readers.placing import placed
from stpl_core.readers.projections import crs_of, project
from stpl_core.readers.units import rain_amount, reflectivity
from stpl_core.safety.budget import check_pixels

__all__ = ["ABOUT", "NAMES", "SUFFIXES", "read", "recognises"]

SUFFIXES = ("---bin", "-bin")
NAMES = re.compile(
    r"(?:DE\d{4}_)?[A-Z][A-Z0-9](?:2017\.00\d_)?\d{10}(?:_\d{3}){0,2}(?:_MF\d+)?(?:\.bin)?"
    r"|raa\d\d-.*bin|\d{8}_\d{4}_R[YWVXZ]",
    re.IGNORECASE,
)
"""Of files whose name has no suffix."""
ABOUT = "RADOLAN and RADVOR binary composites: RW, RY, RV, YW, SF, RX, WN and their like"
_HEAD = re.compile(rb"[A-Z][A-Z0-9]\d{6}\d{5}\d{4}BY *\d+")
_AMOUNTS = frozenset(
    re.findall(r"\w\w", "RY RZ RW RH RB RL RU EH EB EW EY EZ YW RV RQ SQ SH SF W1 W2 W3 W4 S2 S3")
)
"""Products of rain in mm over their interval."""
_BYTE_DBZ, _WORD_DBZ = frozenset(("RX", "EX", "WX")), frozenset(("WN",))
_NUMBER, _NO_DATA, _NEGATIVE, _CLUTTER = 0x0FFF, 0x2000, 0x4000, 0x8000
_STAND_INS = (2490, 2500)
"""Numbers of clutter and no data, also where a writer leaves the flags out."""
_BYTE_STAND_INS = (249, 250, 255)
_ZR = (256.0, 1.42)
"""DWD's own, for the products that are still reflectivity."""
_CORNERS = {
    (900, 900): (450, 450, 1000),
    (1100, 900): (370, 550, 1000),
    (1200, 1100): (470, 600, 1000),
    (1500, 1400): (600, 800, 1000),
    (4800, 4400): (470, 600, 250),
}
"""Rows and columns -> km from the lower left corner to 9 E 51 N, and the pixel in metres."""
_SPHERE, _WGS84 = "+R=6370040", "+a=6378137 +b=6356752.3142451802"
_WGS84_SINCE = 5
"""Version of the format from which the Earth is that of WGS 84."""


@dataclass(frozen=True)
class _Header:
    product: str
    issued: np.datetime64
    size: int
    """Bytes of the pixels."""
    version: int
    precision: float
    interval_s: float
    height: int
    width: int
    lead_min: int


def recognises(path: Path) -> bool:
    """Whether it begins as the format does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _HEAD.match(file.read(64)) is not None


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the one frame of a file; none where `--select lead=0` asks for another lead time."""
    with path.open("rb") as file:
        head = file.read(4096)
        end = head.find(b"\x03")
        if end < 0 or not _HEAD.match(head):
            raise FrameError(
                f"{path} does not begin as RADOLAN does: {head[:24]!r}",
                expected="such as RW010050100000624BY1620130",
                fix="another file, or another --reader",
            )
        header = _header(head[:end].decode("latin-1"), end, path)
        if not _is_wanted(header, options, path):
            return
        check_pixels(path, header.height, header.width)
        file.seek(end + 1)
        content = file.read(header.size)
    if len(content) < header.size:
        raise EOFError(f"{header.size - len(content)} bytes of the pixels are missing")
    frame, state, quantity = _values(content, header, path)
    yield Piece(
        frames=frame[::-1][None, None],  # (1, 1, H, W), stored from the south
        state=state[::-1][None],
        grid=_grid(header, path),
        quantity=quantity,
        source=str(path),
        time=np.array([header.issued + np.timedelta64(header.lead_min, "m")]),
        notes={"institution": "Deutscher Wetterdienst"},
    )


def _is_wanted(header: _Header, options: ReadOptions, path: Path) -> bool:
    for name, text in options.select:
        if name != "lead" or not re.fullmatch(r"\d+(,\d+)*", text):
            raise UsageError(
                f"--select {name}={text} for {path}",
                expected="lead, in minutes",
                fix="--select lead=0",
            )
        return str(header.lead_min) in [str(int(word)) for word in text.split(",")]
    return True


def _header(text: str, end: int, path: Path) -> _Header:
    """The facts in the line; all after `MS` is a list of radars."""
    facts = text[:17], text[17:].partition("MS")[0]

    def found(pattern: str, name: str) -> re.Match[str]:
        match = re.search(pattern, facts[1])
        if match is None:
            raise FrameError(
                f"{path} has the header {text!r}, without {name} as it is known",
                expected=pattern.replace("\\", ""),
                fix="another product",
            )
        return match

    product, stamp = text[:2], f"{text[2:8]}{text[13:17]}"
    try:
        issued = datetime.strptime(stamp, "%d%H%M%m%y")
    except ValueError as error:
        raise FrameError(
            f"{path} has the time {text[2:8]} {text[13:17]} in its header",
            expected="DDHHMM MMYY",
            fix="repair the file",
        ) from error
    dims = found(r"GP *(\d+) *x *(\d+)", "the size GP")
    interval = found(r"INT *(\d+)(?:U *(\d))?", "the interval INT")
    minutes = int(interval[1]) * (1440 if interval[2] == "1" else 1)
    lead = re.search(r"VV *(\d+)", facts[1])
    version = re.search(r"VS *(\d+)", facts[1])
    return _Header(
        product=product,
        issued=np.datetime64(issued, "ns"),
        size=int(found(r"BY *(\d+)", "the length BY")[1]) - end - 1,
        version=int(version[1]) if version else 3,
        precision=float("1" + found(r"PR *(E[-+]?\d+)", "the precision PR")[1]),
        interval_s=60.0 * minutes,
        height=int(dims[1]),
        width=int(dims[2]),
        lead_min=int(lead[1]) if lead else 0,
    )


def _values(
    content: bytes, header: _Header, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Quantity]:
    """Frame and states `(H, W)` as stored, and what they mean."""
    shape = header.height, header.width
    width = 1 if header.product in _BYTE_DBZ else 2
    if header.product not in _BYTE_DBZ | _WORD_DBZ | _AMOUNTS:
        raise FrameError(
            f"{path} is the product {header.product}",
            expected=f"rain or reflectivity: {', '.join(sorted(_AMOUNTS | _BYTE_DBZ | _WORD_DBZ))}",
            fix="another product",
        )
    if header.size != shape[0] * shape[1] * width:
        raise FrameError(
            f"{path} states {header.size} bytes for {shape[0]}x{shape[1]} pixels",
            expected=f"{shape[0] * shape[1] * width}",
            fix="another file",
        )
    stored: NDArray[Any] = np.frombuffer(content, "u1" if width == 1 else "<u2").reshape(shape)
    if width == 1 and header.precision != 1.0:
        raise FrameError(
            f"{path} is the product {header.product} with the precision {header.precision:g}",
            expected="E+00: a byte is a reflectivity by itself",
            fix="another product",
        )
    if width == 1:
        number, lost = stored.astype(np.float64), np.isin(stored, _BYTE_STAND_INS)
    else:
        number = (stored & _NUMBER).astype(np.float64)
        lost = (stored & (_NO_DATA | _CLUTTER) > 0) | np.isin(stored & _NUMBER, _STAND_INS)
        number = np.where(stored & _NEGATIVE, -number, number) * header.precision
    quantity = rain_amount(header.interval_s)
    nothing = number == 0
    if header.product not in _AMOUNTS:
        quantity = reflectivity(_ZR)
        number = number / 2.0 - 32.5
    assert quantity.no_echo is not None
    state = np.full(shape, VALUE, np.uint8)
    state[nothing] = NO_ECHO
    state[lost] = NO_DATA
    frame = number.astype(np.float32)
    frame[state == NO_ECHO] = quantity.no_echo
    frame[state == NO_DATA] = np.nan
    return frame, state, quantity


def _grid(header: _Header, path: Path) -> Grid:
    size = header.height, header.width
    if size not in _CORNERS:
        raise FrameError(
            f"{path} has {size[0]}x{size[1]} pixels",
            expected=f"a grid of DWD: {', '.join(f'{h}x{w}' for h, w in _CORNERS)}",
            fix="another product",
        )
    earth = _WGS84 if header.version >= _WGS84_SINCE else _SPHERE
    definition = f"+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 {earth} +units=m +type=crs"
    x, y = project(definition, 9.0, 51.0, str(path))
    west_km, south_km, pixel = _CORNERS[size]
    left, bottom = x - 1000.0 * west_km, y - 1000.0 * south_km
    affine = (left, bottom + size[0] * pixel, float(pixel), -float(pixel))
    return placed(affine, *size, crs_of(definition, str(path)))[0]
