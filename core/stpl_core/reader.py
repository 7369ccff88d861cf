"""Readers: what people have, as frames. Read this file before `readers/`.

A reader is one module under `readers/` (or of another package, see below). It turns one file, or
one folder that belongs together, into pieces: frames in physical units with their times, the state
of every pixel and the grid. All pieces of a path are checked against each other and joined into one
xarray dataset; `stpl_core.readers.dataset` describes it.

A package of yours adds a reader by an entry point of the group `stpl_deploy.readers`: the name is
the word for `--reader`, the value a module that has

    SUFFIXES = (".xyz",)                    # the ends of the file names it reads, lower case
    ABOUT = "what it reads, in a few words"
    def read(path: Path, options: ReadOptions) -> Iterator[Piece]: ...
    def recognises(path: Path) -> bool: ...  # where the suffix is not enough; optional
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.grid import Grid

VALUE, NO_ECHO, NO_DATA = 0, 1, 2
"""States of a pixel: a measured value; observed, nothing there; not observed."""

NO_ECHO_DBZ = -32.0
"""What `frames` holds in dBZ where there is no echo; a rain rate or amount holds 0."""

Times = NDArray[np.datetime64]
"""`datetime64[ns]`, UTC."""

States = NDArray[np.uint8]
"""VALUE, NO_ECHO or NO_DATA for every pixel."""

Mask = NDArray[np.bool_]
"""True where a pixel was observed."""

CREDITS = ("institution", "licence", "attribution")
"""Of `Piece.notes`: where the data came from, which goes with every nowcast."""


@dataclass(frozen=True)
class Quantity:
    """What a pixel's number means."""

    name: str
    """In words, such as `rain rate`."""
    units: str
    """In CF notation: `mm h-1`, `mm`, `dBZ`, `K`, `1` (a fraction), `count`, or `unknown`."""
    standard_name: str = ""
    """CF standard name, where there is one."""
    no_echo: float | None = None
    """What `frames` holds where there is no echo."""
    channels: tuple[str, ...] = ("",)
    zr: tuple[float, float] | None = None
    """a and b of Z = a R^b that the source states or is known to use."""
    accumulation_s: float | None = None
    """Seconds over which an amount was added up, ending at the frame's time."""


@dataclass(frozen=True)
class Piece:
    """Some frames of one file, in the order of time."""

    frames: Array
    """`(n, C, H, W)` float32 in physical units; NaN where nothing was observed."""
    state: States
    """`(n, H, W)` uint8."""
    grid: Grid
    quantity: Quantity
    source: str
    """The file, as the user would name it."""
    time: Times | None = None
    """`(n,)`; None where the data gives only the order of the frames."""
    elapsed_s: NDArray[np.float64] | None = None
    """`(n,)`, seconds since the start of the sequence, where there is no `time` but a clock."""
    cadence_s: float | None = None
    """Seconds between frames, where the data states it or, without times, where it is assumed."""
    begins: NDArray[np.bool_] | None = None
    """`(n,)`, True where a frame does not continue the one before it (in another piece too, for
    the first); None: all go on."""
    split: int | None = None
    """0 train, 1 validation, 2 test, where a split was published with the data."""
    notes: dict[str, str] = field(default_factory=dict)
    """What else is worth keeping: `institution`, `licence`, `attribution`, `split_rule`, ..."""
    bad: int = 0
    """Pixels whose value was impossible and that are no data for it."""


@dataclass(frozen=True)
class ReadOptions:
    """What a user may choose about reading."""

    variable: str | None = None
    """The variable, quantity or parameter, where a file holds several; grey or rgb for video
    and pictures."""
    broken: Callable[[FrameError], None] | None = None
    """Called for each broken file of a folder, which is then skipped; None: the error is raised.
    Only for a folder that is one piece of data with a file for each frame."""
    time_format: str | None = None
    """Pattern of the time in the files' names (`stpl_core.readers.time_format`); goes before the
    time that a file of one frame states itself."""
    units: str | None = None
    """Unit of the values, where the file states none or a wrong one."""
    nan: Literal["no-data", "no-echo"] = "no-data"
    """What a missing value (NaN, fill value) is: not observed, or observed and nothing there."""
    select: tuple[tuple[str, str], ...] = ()
    """Dimension and the label, or labels with commas between, to read along it."""
    bad_pixels: float = 0.01
    """Share of the pixels of a file whose value may be impossible (infinite, or beyond what the
    quantity can have): they become no data; more is refused."""
    layout: str | None = None
    """The axes of arrays, such as `NTHW` (`stpl_core.reading.axes`); None: as the shape says."""


class Reader(Protocol):
    """What a reader's module has; `recognises` may be missing."""

    SUFFIXES: tuple[str, ...]
    """Ends of the names of its files, lower case, such as `.pgm.gz`; empty: folders only."""
    ABOUT: str
    """What it reads, in a few words."""

    def read(self, path: Path, options: ReadOptions) -> Iterator[Piece]:
        """Yield the frames of one file, or of a folder that `recognises` claims, piece by piece.

        An OSError, ValueError, KeyError or EOFError of the library that decodes may pass through:
        the caller turns it into a FrameError that names the file.

        Raises:
            FrameError: what it holds cannot be used.
            MissingExtraError: its library is not installed.
        """
        ...


def begins_first(count: int) -> NDArray[np.bool_]:
    """`Piece.begins` of one sequence of `count` frames."""
    return np.asarray(np.arange(count) == 0)


def agreed_step(written: float | None, measured: float, count: int) -> float:
    """The pixel size a file states if that moves the far edge by less than 0.01 pixel, or measured.

    Args:
        written: as in the file; None where it is not there.
        measured: from the corners, which are rounded too.
        count: pixels from edge to edge.
    """
    if written is not None and abs(abs(written) - measured) * count < 0.01 * measured:
        return abs(float(written))
    return measured


def state_of(frames: Array) -> States:
    """States `(n, H, W)` of frames `(n, C, H, W)` that know no "no echo": NaN is no data."""
    return np.where(np.isnan(frames).any(axis=1), NO_DATA, VALUE).astype(np.uint8)


def no_echo_at_zero(frames: Array) -> States:
    """States of rain frames whose zero means that nothing was seen."""
    state = state_of(frames)
    state[(frames == 0).all(axis=1)] = NO_ECHO
    return state
