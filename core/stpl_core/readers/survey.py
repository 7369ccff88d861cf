"""What a file or folder holds: times, gaps, range, share of each state, grid."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Quantity, States
from stpl_core.readers.converted import pieces_of_dataset
from stpl_core.readers.dataset import cadence_of
from stpl_core.readers.join import Joined, Joiner
from stpl_core.reading.understood import Understood

if TYPE_CHECKING:
    import xarray as xr

_GAP = 1.5
"""Steps of more than so many cadences are gaps."""
_OFF = 0.25
"""Steps that leave the cadence by more than so many of it are off it."""


@dataclass(frozen=True)
class Gap:
    """Frames that are not there."""

    after: str
    before: str
    missing: int
    file: str
    """The first file after the gap."""


@dataclass(frozen=True)
class Sight:
    """One frame to look at."""

    time: str
    frame: Array
    """`(C, H, W)`."""
    state: States
    """`(H, W)`."""


@dataclass(frozen=True)
class Survey:
    """The facts of `stpl-deploy data inspect`."""

    frames: int
    shape: tuple[int, int, int]
    """(C, H, W)"""
    quantity: Quantity
    grid: Grid
    files: int
    sequences: int
    observed: bool
    """The times are those of the data, not counted."""
    first: str
    last: str
    cadence_s: float | None
    gaps: list[Gap]
    off_cadence: list[str]
    """Times whose step from the frame before is no multiple of the cadence."""
    low: float | None
    """Least and greatest value among pixels that have one; None where none has."""
    high: float | None
    share: dict[str, float]
    """Of all pixels: value, no_echo, no_data."""
    empty: list[str]
    """Files, with the time, of frames that are no data all over."""
    notes: dict[str, str] = field(default_factory=dict)
    bad: int = 0
    """Pixels that are no data because their value was impossible."""

    @property
    def understood(self) -> Understood:
        """The facts in which a wrong reading shows."""
        return Understood(
            sequences=self.sequences,
            frames=self.frames,
            shape=self.shape,
            low=self.low,
            high=self.high,
            quantity=self.quantity.name,
            units=self.quantity.units,
            cadence_s=self.cadence_s if self.observed else None,
        )

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        made = asdict(self)
        made["grid"]["corners"] = list(self.grid.corners)
        return made


class Surveyor:
    """Looks at pieces as they go by; keeps the first and the last frame."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._parts: list[tuple[Any, Any, list[str]]] = []  # times, sequences, files
        self._counts = np.zeros(3, np.int64)
        self._low, self._high = np.inf, -np.inf
        self._empty: list[str] = []
        self._bad = 0
        self._piece: Any = None
        self._files: list[str] = []
        self.sights: list[Sight] = []
        """The first and the last frame."""

    def add(self, part: Joined, files: list[str]) -> None:
        """Take a piece into account."""
        piece = part.piece
        if self._piece is None:
            self._piece = piece
            self.sights.append(_sight(part, 0))
        self.sights[1:] = [_sight(part, -1)]
        self._files = files
        self._parts.append((part.time, part.sequence, [piece.source] * len(part.time)))
        self._bad += piece.bad
        self._counts += np.bincount(piece.state.ravel(), minlength=3)[:3]
        valued = np.broadcast_to((piece.state == VALUE)[:, None], piece.frames.shape)
        if valued.any():
            self._low = min(self._low, float(np.min(piece.frames, where=valued, initial=np.inf)))
            self._high = max(self._high, float(np.max(piece.frames, where=valued, initial=-np.inf)))
        for n in np.flatnonzero((piece.state == NO_DATA).all(axis=(1, 2))):
            self._empty.append(f"{piece.source} ({_text(part.time[n])})")

    def survey(self) -> Survey:
        """What was seen.

        Raises:
            FrameError: nothing was.
        """
        if self._piece is None:
            raise FrameError("no frame was read", expected="at least one", fix="check the path")
        piece = self._piece
        time = np.concatenate([part[0] for part in self._parts])
        sequence = np.concatenate([part[1] for part in self._parts])
        sources = [source for part in self._parts for source in part[2]]
        order = np.argsort(time, kind="stable")
        time, sequence = time[order], sequence[order]
        cadence_s = cadence_of(time, sequence) or piece.cadence_s
        gaps, off = _gaps(time, sequence, [sources[n] for n in order], cadence_s)
        total = max(1, int(self._counts.sum()))
        return Survey(
            frames=len(time),
            shape=piece.frames.shape[1:],
            quantity=piece.quantity,
            grid=piece.grid,
            files=len(self._files),
            sequences=int(sequence.max()) + 1,
            observed=piece.time is not None,
            first=_text(time[0]),
            last=_text(time[-1]),
            cadence_s=cadence_s,
            gaps=gaps,
            off_cadence=off,
            low=self._low if np.isfinite(self._low) else None,
            high=self._high if np.isfinite(self._high) else None,
            share={
                name: float(self._counts[state]) / total
                for name, state in (("value", VALUE), ("no_echo", NO_ECHO), ("no_data", NO_DATA))
            },
            empty=self._empty,
            notes=dict(piece.notes),
            bad=self._bad,
        )


def survey_of(opened: xr.Dataset) -> Survey:
    """The facts of an opened dataset."""
    surveyor, joiner = Surveyor(), Joiner()
    for piece in pieces_of_dataset(opened, 2**23):
        surveyor.add(joiner.add(piece), joiner.files)
    return surveyor.survey()


def _gaps(
    time: Any, sequence: Any, sources: list[str], cadence_s: float | None
) -> tuple[list[Gap], list[str]]:
    gaps: list[Gap] = []
    off: list[str] = []
    if not cadence_s:
        return gaps, off
    steps = np.diff(time).astype("timedelta64[ns]").astype(np.int64) / 1e9 / cadence_s
    for n in np.flatnonzero(np.diff(sequence) == 0):
        slots = max(1, round(float(steps[n])))
        if abs(steps[n] - slots) > _OFF:
            off.append(_text(time[n + 1]))
        if steps[n] > _GAP:
            gaps.append(Gap(_text(time[n]), _text(time[n + 1]), slots - 1, sources[n + 1]))
    return gaps, off


def _sight(part: Joined, n: int) -> Sight:
    return Sight(_text(part.time[n]), part.piece.frames[n].copy(), part.piece.state[n].copy())


def _text(time: Any) -> str:
    """ISO 8601, as short as it is exact."""
    text = str(np.datetime64(time, "ns"))
    head, _, tail = text.partition(".")
    tail = tail.rstrip("0")
    return f"{head}.{tail}Z" if tail else f"{head}Z"
