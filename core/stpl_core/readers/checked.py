"""What every piece goes through, whoever read it.

The user's word on units, times and missing values is heeded, and impossible values are looked for:
an infinite one, or one beyond what the quantity can have, is a bad pixel, becomes no data and is
counted. More finite ones than `ReadOptions.bad_pixels` are refused, since then it is the file that
is not understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from stpl_core.errors import FrameError, UsageError
from stpl_core.reader import NO_DATA, NO_ECHO, Piece, Quantity, ReadOptions
from stpl_core.readers.names import file_time
from stpl_core.readers.units import is_misspelt, is_not_rain, rain_or_echo, understood

_POSSIBLE = {
    "mm h-1": (-1e-3, 2500.0),
    "mm": (-1e-3, 2500.0),
    "dBZ": (-100.0, 100.0),
    "K": (0.0, 1000.0),
    "degC": (-273.15, 1000.0),
}
"""Least and greatest value of a quantity by its unit. Rain: 2280 mm/h fell in a minute (Unionville
1956); a thousandth below 0 is rounding. Reflectivity: the 8 bits
of radars end below 96 dBZ."""
_STATED = ("odim", "knmi", "radolan", "fmi_pgm", "mch_gif", "meteonet", "mrms")
"""Readers whose files always state unit, no echo and no data."""
_FRACTIONS = ("pictures", "video", "kth", "moving_mnist")
"""Readers whose numbers are a fraction of full scale: no unit makes them anything else."""
_UNITS_THEMSELVES = ("netcdf", "zarr")
"""Readers that heed `ReadOptions.units` where they decode."""
_NAN_THEMSELVES = (*_UNITS_THEMSELVES, "odim")
"""Readers that heed `ReadOptions.nan` where they decode."""
_OF_ONE_FIELD = ("fmi_pgm", "mch_gif", "meteonet", "mrms", "radolan", "knmi", "geotiff", "kth")
"""Readers whose files hold one field: there is no variable to choose."""
_NOTHING_TO_SELECT = (
    *("fmi_pgm", "mch_gif", "meteonet", "mrms", "geotiff", "arrays", "taxibj"),
    *("pictures", "video", "kth", "moving_mnist"),
)
"""Readers whose files have no dimension of which a part may be chosen."""


def checked(
    pieces: Iterable[Piece], path: Path, word: str, options: ReadOptions
) -> Iterator[Piece]:
    """Pieces of one file as the user states them, impossible values taken out.

    Raises:
        FrameError: more impossible values than may be.
        UsageError: an option that makes no sense for this format.
    """
    _refuse_idle(path, word, options)
    for piece in pieces:
        if options.time_format is not None and _one_frame(piece, path):
            piece = replace(piece, time=np.array([file_time(path, options)]))
        if options.units is not None and word not in _UNITS_THEMSELVES:
            if word in _STATED and not _leaves_open(piece.quantity):
                raise states_itself("units", path, word)
            piece = in_stated_units(piece, options.units)
        if options.nan == "no-echo" and word not in _NAN_THEMSELVES:
            piece = nan_as_no_echo(piece)
        yield possible(piece, options.bad_pixels, word)


def _leaves_open(quantity: Quantity) -> bool:
    """Whether a file that states units leaves out the unit, or the time that an amount is of."""
    return quantity.units == "unknown" or (
        quantity.units == "mm" and quantity.accumulation_s is None
    )


def _one_frame(piece: Piece, path: Path) -> bool:
    """Whether a piece is the one frame of a file with a name: not one of many, nor of a folder."""
    return (
        path.is_file() and len(piece.frames) == 1 and (piece.begins is None or piece.time is None)
    )


def _refuse_idle(path: Path, word: str, options: ReadOptions) -> None:
    if options.units is not None and is_misspelt(options.units):
        raise UsageError(
            f"--units {options.units} is not understood",
            expected="a unit such as mm/h, mm/5min, mm, kg m-2 s-1, dBZ, K",
            fix="--units mm/h",
        )
    if word in _FRACTIONS and options.units not in (None, "1"):
        raise UsageError(
            f"--units {options.units} for {path}",
            expected=f"data with units: {word} gives a fraction of full scale",
            fix="write the physical values as .npz, .nc or .tif first",
        )
    if options.variable is not None and word in _OF_ONE_FIELD:
        raise _no_choice("variable", options.variable, path, word)
    if options.select and word in _NOTHING_TO_SELECT:
        raise _no_choice("select", "=".join(options.select[0]), path, word)
    if options.nan != "no-data" and word in _STATED and word not in _NAN_THEMSELVES:
        raise states_itself("nan", path, word)


def _no_choice(option: str, text: str, path: Path, word: str) -> UsageError:
    return UsageError(
        f"--{option} {text} for {path}",
        expected=f"a format that leaves a choice: all that a file of {word} holds is read",
        fix=f"leave --{option} out",
    )


def states_itself(option: str, path: Path, word: str) -> UsageError:
    """The error of an option for what the files of a format state."""
    return UsageError(
        f"--{option} for {path}",
        expected=f"a format that leaves it open: {word} states units and no echo itself",
        fix=f"leave --{option} out",
    )


def in_stated_units(piece: Piece, text: str, about: str = "rain") -> Piece:
    """A piece whose numbers are in a unit that the user states, or a file in words of its own.

    Args:
        piece: its numbers as they are.
        text: the unit.
        about: what the numbers are; see `units.understood`.
    """
    unit = understood(text, about)
    quantity = rain_or_echo(unit.name, piece.quantity.zr, piece.quantity.accumulation_s)
    frames = piece.frames
    if unit.factor != 1.0:
        frames = (frames * np.float64(unit.factor)).astype(np.float32)
    if quantity is None or len(piece.quantity.channels) > 1 or is_not_rain(about):
        return replace(piece, frames=frames, quantity=replace(piece.quantity, units=unit.name))
    state = piece.state.copy()
    if quantity.no_echo == 0.0:
        state[(frames == 0).all(axis=1) & (state != NO_DATA)] = NO_ECHO
    return replace(piece, frames=frames, state=state, quantity=quantity)


def nan_as_no_echo(piece: Piece) -> Piece:
    """A piece whose missing values are observed, with nothing there.

    Raises:
        UsageError: of this quantity there is no "no echo".
    """
    nothing = no_echo_of(piece.quantity, piece.source)
    frames, state = piece.frames.copy(), piece.state.copy()
    missing = state == NO_DATA
    state[missing] = NO_ECHO
    frames[np.broadcast_to(missing[:, None], frames.shape)] = nothing
    return replace(piece, frames=frames, state=state)


def no_echo_of(quantity: Quantity, source: str) -> float:
    """The value of no echo.

    Raises:
        UsageError: of this quantity there is none.
    """
    if quantity.no_echo is None:
        raise UsageError(
            f"--nan no-echo, and {source} is in {quantity.units}",
            expected="rain or reflectivity (mm h-1, mm, dBZ)",
            fix="--units UNIT states what it is, or leave --nan out",
        )
    return quantity.no_echo


def possible(piece: Piece, most: float, word: str = "") -> Piece:
    """A piece without impossible values; `Piece.bad` counts those that it had.

    Args:
        piece: any.
        most: share of its pixels that may be impossible.
        word: of the reader, for what a message suggests.

    Raises:
        FrameError: their share of the pixels is above `most`.
    """
    low, high = _POSSIBLE.get(piece.quantity.units, (-np.inf, np.inf))
    seen = (piece.state != NO_DATA)[:, None]
    with np.errstate(invalid="ignore"):
        wrong = seen & ~(np.isfinite(piece.frames) & (piece.frames >= low) & (piece.frames <= high))
    bad = wrong.any(axis=1)  # (n, H, W)
    count = int(bad.sum())
    if not count:
        return piece
    finite = wrong & np.isfinite(piece.frames)
    values = piece.frames[finite]
    if finite.any(axis=1).sum() > most * bad.size:
        bounds = f" in [{low:g}, {high:g}]"
        share = float(finite.any(axis=1).mean())
        ways = [
            "--units UNIT if that is wrong, " if word not in _STATED else "",
            "--variable NAME for another field, " if word not in _OF_ONE_FIELD else "",
        ]
        raise FrameError(
            f"{piece.source} has {share:.1%} of its pixels from {values.min():g} to "
            f"{values.max():g} {piece.quantity.units}",
            expected=f"values{bounds} in all but {most:.2%} of the pixels",
            fix=f"{''.join(ways)}{'or ' if any(ways) else ''}"
            f"--bad-pixels {min(1.0, np.ceil(100 * share) / 100):g} to take them as no data",
        )
    frames, state = piece.frames.copy(), piece.state.copy()
    state[bad] = NO_DATA
    frames[np.broadcast_to(bad[:, None], frames.shape)] = np.nan
    return replace(piece, frames=frames, state=state, bad=count)
