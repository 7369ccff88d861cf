"""ERA5 and other GRIB fields that eccodes knows by name.

One parameter, or several of one unit as channels; `--variable` takes short names, such as `2t` or
`10u,10v`. Of several levels or members one is chosen (`--select level=850`). Amounts of rain are mm
over the period that the message states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from stpl_core.errors import FrameError, UsageError
from stpl_core.reader import NO_DATA, NO_ECHO, Piece, Quantity, ReadOptions, state_of
from stpl_core.readers.grib import SUFFIXES, Message, grid_of, messages
from stpl_core.readers.units import rain_or_echo, understood

__all__ = ["ABOUT", "SUFFIXES", "read"]

ABOUT = "ERA5 and other GRIB 1 and 2: latitude and longitude, rotated pole, projections"
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
_CHOICES = ("level", "number")
"""Keys of which one value is chosen."""


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frames in blocks; messages of one time are the channels of one frame."""
    wanted = options.variable.split(",") if options.variable else None
    _check_select(options, path)
    block: list[list[Message]] = []
    first: list[Message] | None = None
    for frame in _by_time(path, wanted, dict(options.select)):
        frame = _in_order(frame, wanted)
        first = first or frame
        _check_alike(frame, first, path)
        block.append(frame)
        if len(block) == _BLOCK:
            yield _piece(block, path)
            block = []
    if block:
        yield _piece(block, path)
    elif first is None:
        raise _none_found(path, options)


def _check_select(options: ReadOptions, path: Path) -> None:
    for name, text in options.select:
        if name not in _CHOICES or "," in text:
            raise UsageError(
                f"--select {name}={text} for {path}",
                expected=f"one value of {' or '.join(_CHOICES)}: GRIB has nothing else to choose",
                fix=f"--select {name if name in _CHOICES else 'level'}=NUMBER",
            )


def _none_found(path: Path, options: ReadOptions) -> FrameError:
    """The error of a choice that fits no message: what there is."""
    held = [message.keys for message in messages(path)]
    names = sorted({str(keys["shortName"]) for keys in held})
    found = f"{path} holds no field {options.variable or ''}".rstrip()
    for name, text in options.select:
        there = sorted({str(keys[name]) for keys in held if keys[name] is not None})
        if there and text not in there:
            return FrameError(
                f"{found} with {name} {text}",
                expected=f"{name} of {', '.join(there)}",
                fix=f"--select {name}={there[0]}",
            )
        if not there:
            return FrameError(
                f"{found} with a {name}", expected="fields that have one", fix="leave --select out"
            )
    return FrameError(found, expected=f"one of {', '.join(names)}", fix=f"--variable {names[0]}")


def _by_time(
    path: Path, wanted: list[str] | None, select: dict[str, str]
) -> Iterator[list[Message]]:
    frame: list[Message] = []
    for message in messages(path):
        keys = message.keys
        if wanted is not None and keys["shortName"] not in wanted:
            continue
        if any(str(keys[name]) != text for name, text in select.items()):
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


def _check_alike(frame: list[Message], first: list[Message], path: Path) -> None:
    """Refuse a frame of several levels or members, or of others than the first frame's."""
    names = [str(message.keys["shortName"]) for message in frame]
    for key in _CHOICES:
        found = [(message.keys["shortName"], message.keys[key]) for message in frame]
        several = list(dict.fromkeys(value for name, value in found if name == names[0]))
        if len(several) > 1:
            raise FrameError(
                f"{path} has {names[0]} of the {key}s {', '.join(map(str, several))}",
                expected="one of them",
                fix=f"--select {key}={several[0]}",
            )
    before = [str(message.keys["shortName"]) for message in first]
    when = frame[0].time.astype("<M8[s]")
    if names != before:
        raise FrameError(
            f"{path} has {', '.join(names)} at {when}",
            expected=f"{', '.join(before)} as before",
            fix=f"--variable {before[0]}",
        )
    if len(set(names)) < len(names):
        raise FrameError(
            f"{path} has {names[0]} {names.count(names[0])} times at {when}",
            expected="every field once",
            fix="grib_copy -w stepRange=0-1 IN OUT, or another key in which they differ",
        )
    for key in _CHOICES:
        here, there = frame[0].keys[key], first[0].keys[key]
        if here != there:
            raise FrameError(
                f"{path} has {names[0]} of the {key} {here} at {when}",
                expected=f"{key} {there} as before",
                fix=f"--select {key}={there}",
            )


def _piece(block: list[list[Message]], path: Path) -> Piece:
    first = block[0][0]
    frames = np.stack([[message.values for message in frame] for frame in block])  # (n, C, H, W)
    quantity, factor = _quantity(block[0], path)
    if quantity.no_echo is not None and quantity.units == "mm":
        quantity = replace(quantity, accumulation_s=_period_s(block, path))
    frames = (frames * np.float64(factor)).astype(np.float32) if factor != 1.0 else frames
    state = state_of(frames)
    if quantity.no_echo == 0.0:
        state[(frames == 0).all(axis=1) & (state != NO_DATA)] = NO_ECHO
    grid = grid_of(first, path)
    for frame in block:
        if not grid_of(frame[-1], path).same_as(grid):
            raise FrameError(
                f"{path} has another grid at {frame[0].time.astype('<M8[s]')}",
                expected=f"the corners {grid.corners} as before",
                fix=f"grib_copy {path.name} '[md5GridSection].grib', a file for each grid",
            )
    return Piece(
        frames=frames,
        state=state,
        grid=grid,
        quantity=quantity,
        source=str(path),
        time=np.array([frame[0].time for frame in block]),
        notes=_NOTES.get(str(first.keys["centre"]), {}),
    )


def _quantity(frame: list[Message], path: Path) -> tuple[Quantity, float]:
    """What the numbers mean, and what to multiply them with."""
    names = [str(message.keys["shortName"]) for message in frame]
    read = [
        understood(
            str(message.keys["units"]), f"{message.keys['name']} {message.keys['shortName']}"
        )
        for message in frame
    ]
    if len(set(read)) > 1:
        texts = sorted({str(message.keys["units"]) for message in frame})
        raise FrameError(
            f"{path} holds {', '.join(names)} in {', '.join(texts)}",
            expected="fields of one unit",
            fix=f"--variable {names[0]}",
        )
    unit = read[0]
    if len(frame) > 1:
        return Quantity(", ".join(names), unit.name, channels=tuple(names)), unit.factor
    keys = frame[0].keys
    made = rain_or_echo(unit.name)
    if made is not None and not (unit.name == "mm" and keys["stepType"] != "accum"):
        return made, unit.factor
    if unit.name == "mm":  # what lies there, not what fell: as it is written
        return Quantity(str(keys["name"]), str(keys["units"])), 1.0
    return Quantity(str(keys["name"]), unit.name, _STANDARD_NAMES.get(names[0], "")), unit.factor


def _period_s(block: list[list[Message]], path: Path) -> float | None:
    """Over which time amounts were added up; None where nothing says.

    Raises:
        FrameError: not all over one time, as sums that run from the start of a forecast.
    """
    steps = [frame[0].keys["steps_s"] for frame in block]
    spans = {None if one is None else one[1] - one[0] for one in steps}
    if len(spans) > 1:
        ranges = list(dict.fromkeys(str(frame[0].keys["stepRange"]) for frame in block))
        raise FrameError(
            f"{path} holds amounts of several periods: stepRange {', '.join(ranges[:4])}",
            expected="amounts of one period, each for itself",
            fix=f"grib_copy -w stepRange={ranges[0]} {path.name} one.grib",
        )
    span = spans.pop()
    return span if span else None
