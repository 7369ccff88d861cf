"""MRMS products in GRIB2 (NOAA), plain or gzipped.

The fields are of a local table (discipline 209), which eccodes calls `unknown`: the triple of
numbers gives the rain rate, the product's name in the file name the others. Below zero is no
coverage for rain (-3, -1); -99 and -999 are for reflectivity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions, States
from stpl_core.readers.grib import SUFFIXES, Message, grid_of, messages
from stpl_core.readers.units import rain_amount, rain_rate, reflectivity
from stpl_core.safety.budget import open_unpacked

__all__ = ["ABOUT", "SUFFIXES", "read", "recognises"]

ABOUT = "MRMS GRIB2: PrecipRate, QPE, reflectivity"
_DISCIPLINE = 209
_PRECIP_RATE = (_DISCIPLINE, 6, 1)
_NO_COVERAGE_DBZ, _BELOW_DBZ = -900.0, -90.0


def recognises(path: Path) -> bool:
    """Whether it is GRIB 2 of MRMS's discipline: bytes 7 and 8 of the message say so."""
    if not path.is_file():
        return False
    with open_unpacked(path) as file:
        head = file.read(1024)
    start = head.find(b"GRIB")
    return start >= 0 and head[start + 6 : start + 8] == bytes([_DISCIPLINE, 2])


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield one frame for each message."""
    for message in messages(path):
        quantity = _quantity(message, path)
        frame = message.values.copy()
        state = _states(message, quantity)
        assert quantity.no_echo is not None
        frame[state == NO_ECHO] = quantity.no_echo
        frame[state == NO_DATA] = np.nan
        yield Piece(
            frames=frame[None, None],  # (1, 1, H, W)
            state=state[None],
            grid=grid_of(message, path),
            quantity=quantity,
            source=str(path),
            time=np.array([message.time]),
            notes={"institution": "NOAA MRMS"},
        )


def _quantity(message: Message, path: Path) -> Quantity:
    if message.triple == _PRECIP_RATE or "PrecipRate" in path.name:
        return rain_rate()
    if match := re.search(r"QPE_(\d+)([HM])", path.name):
        return rain_amount(int(match[1]) * {"H": 3600.0, "M": 60.0}[match[2]])
    if "Reflectivity" in path.name and "Height" not in path.name:  # heights are in km
        return reflectivity()
    raise FrameError(
        f"{path} holds the field {message.triple} (discipline, category, number)",
        expected="PrecipRate (209, 6, 1), or QPE or Reflectivity in the file name",
        fix="keep the file names of MRMS",
    )


def _states(message: Message, quantity: Quantity) -> States:
    values = message.values
    state = np.full(values.shape, VALUE, np.uint8)
    if quantity.units == "dBZ":
        state[values < _BELOW_DBZ] = NO_ECHO
        state[values < _NO_COVERAGE_DBZ] = NO_DATA
    else:
        state[values == 0] = NO_ECHO
        state[values < 0] = NO_DATA
    state[np.isnan(values)] = NO_DATA
    return state
