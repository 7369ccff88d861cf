"""ERA5 and other GRIB fields that eccodes knows by name, on latitude and longitude.

One parameter, or several of one unit as channels; `--variable` takes short names, such as `2t` or
`10u,10v`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.reader import Piece, Quantity, ReadOptions, state_of
from stpl_core.readers.grib import SUFFIXES, Message, grid_of, messages
from stpl_core.readers.units import cf_units

__all__ = ["ABOUT", "SUFFIXES", "read"]

ABOUT = "ERA5 and other GRIB 1 and 2 on latitude and longitude"
_STANDARD_NAMES = {
    "2t": "air_temperature",
    "t": "air_temperature",
    "msl": "air_pressure_at_mean_sea_level",
    "10u": "eastward_wind",
    "10v": "northward_wind",
    "tp": "lwe_thickness_of_precipitation_amount",
}
_NOTES = {
    "ecmf": {
        "institution": "ECMWF",
        "attribution": "Contains modified Copernicus Climate Change Service information",
    }
}
_BLOCK = 64
"""Frames in a piece."""


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frames in blocks; messages of one time are the channels of one frame."""
    wanted = options.variable.split(",") if options.variable else None
    block: list[list[Message]] = []
    names: list[str] | None = None
    for frame in _by_time(path, wanted):
        frame = _in_order(frame, wanted)
        found = [str(message.keys["shortName"]) for message in frame]
        names = names or found
        if found != names:
            raise FrameError(
                f"{path} has {', '.join(found)} at {frame[0].time.astype('<M8[s]')}",
                expected=f"{', '.join(names)} as before",
                fix=f"--variable {names[0]}",
            )
        block.append(frame)
        if len(block) == _BLOCK:
            yield _piece(block, path)
            block = []
    if block:
        yield _piece(block, path)
    elif names is None:
        raise FrameError(
            f"{path} holds no field {options.variable}", expected="a short name it has", fix="-"
        )


def _by_time(path: Path, wanted: list[str] | None) -> Iterator[list[Message]]:
    frame: list[Message] = []
    for message in messages(path):
        if wanted is not None and message.keys["shortName"] not in wanted:
            continue
        if frame and message.time != frame[0].time:
            yield frame
            frame = []
        frame.append(message)
    if frame:
        yield frame


def _in_order(frame: list[Message], wanted: list[str] | None) -> list[Message]:
    if wanted is None:
        return frame
    return sorted(frame, key=lambda message: wanted.index(str(message.keys["shortName"])))


def _piece(block: list[list[Message]], path: Path) -> Piece:
    first = block[0][0]
    frames = np.stack([[message.values for message in frame] for frame in block])  # (n, C, H, W)
    return Piece(
        frames=frames,
        state=state_of(frames),
        grid=grid_of(first),
        quantity=_quantity(block[0], path),
        source=str(path),
        time=np.array([frame[0].time for frame in block]),
        notes=_NOTES.get(str(first.keys["centre"]), {}),
    )


def _quantity(frame: list[Message], path: Path) -> Quantity:
    units = {cf_units(str(message.keys["units"])) for message in frame}
    names = [str(message.keys["shortName"]) for message in frame]
    if len(units) > 1:
        raise FrameError(
            f"{path} holds {', '.join(names)} in {', '.join(sorted(units))}",
            expected="fields of one unit",
            fix=f"--variable {names[0]}",
        )
    if len(frame) > 1:
        return Quantity(", ".join(names), units.pop(), channels=tuple(names))
    name = str(frame[0].keys["name"])
    return Quantity(name, units.pop(), _STANDARD_NAMES.get(names[0], ""))
