"""A replay of an archive, as fast as it happened or N times that: `replay:PATH`.

PATH is what a reader opens: a folder of files, a Zarr store, a NetCDF, an array. The times are the
data's (`loop` lets it begin again one step after its end). Files are read as they are due, so that
an archive may be larger than memory; one that is broken is bad and stepped over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from stpl_core.errors import FrameError
from stpl_core.frames import Frame
from stpl_core.reader import Piece
from stpl_core.readers.join import Joiner
from stpl_core.readers.names import in_time_order
from stpl_runtime.ingest.decoding import Decoder, datetime_of
from stpl_runtime.ingest.sampling import Pacer
from stpl_runtime.links.health import Health
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec

OPTIONS = ("speed", "loop", "resize")


def open_source(rest: str, spec: SourceSpec) -> ReplaySource:
    """Open the archive `rest`.

    Raises:
        FrameError: nothing is there, or nobody can read it.
        UsageError: an option that does not hold.
    """
    return ReplaySource(Path(rest.removeprefix("//")).expanduser(), spec)


class ReplaySource:
    """Keeps `stpl_runtime.source.Source`; frames wait in the archive."""

    waits = True
    replays = True

    def __init__(self, path: Path, spec: SourceSpec) -> None:
        """Find the reader; see `open_source`."""
        self.path, self.name, self.health = path, f"replay:{path}", Health()
        options = Options("replay", spec.options, OPTIONS)
        self._speed, self._loops = options.number("speed", 1.0), options.flag("loop")
        self._decoder = Decoder(spec, options.resize("none"))
        self._choice = self._decoder.choose(path)
        self._cadence_s = spec.cadence_s

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield the frames when they are due; see the protocol."""
        pacer, shift = Pacer(self._speed), timedelta(0)
        self.health.up()
        while not stop.is_set():
            first = before = last = None
            for item in self._items():
                if isinstance(item, Frame):
                    at = item.valid_time + shift
                    first, before, last = first or at, last, at
                    pacer.wait(at, stop)
                    item = replace(item, valid_time=at)
                if stop.is_set():
                    return
                yield Arrival.now(item)
            if not self._loops or first is None or last is None:
                break
            shift += last - first + self._step(before, last)
        self.health.ended()

    def _step(self, before: datetime | None, last: datetime) -> timedelta:
        """From the end of one round to the start of the next."""
        if self._cadence_s is not None:
            return timedelta(seconds=self._cadence_s)
        return last - before if before is not None else timedelta(seconds=1)

    def _items(self) -> Iterator[Frame | BadFrame]:
        joiner = Joiner()  # gives times to frames that have none
        for path in in_time_order(self._choice.paths, self._decoder.options):
            yield from self._file(path, joiner)

    def _file(self, path: Path, joiner: Joiner) -> Iterator[Frame | BadFrame]:
        broken: list[FrameError] = []
        try:
            for piece in self._decoder.pieces(self._choice, path, broken.append):
                yield from _bad(broken, path)
                try:
                    yield from self._piece(piece, path, joiner)
                except FrameError as error:
                    if Path(piece.source) == path:
                        raise
                    broken.append(error)  # one file of a folder that is read as one
        except FrameError as error:
            broken.append(error)
        yield from _bad(broken, path)

    def _piece(self, piece: Piece, path: Path, joiner: Joiner) -> Iterator[Frame]:
        decoder, name = self._decoder, Path(piece.source).name or path.name
        frames = list(decoder.frames(piece, name))
        if decoder.clock.stated and len(frames) == 1:
            times = [decoder.clock.time(path.with_name(name))]
        elif piece.time is None:
            counted = joiner.add(replace(piece, cadence_s=self._counts(piece.cadence_s)))
            times = [datetime_of(at) for at in counted.time]
        else:
            times = [frame.valid_time for frame in frames]
        for frame, at in zip(frames, times, strict=True):
            yield replace(frame, valid_time=at)

    def _counts(self, found: float | None) -> float | None:
        """Seconds between frames without times: stated, the data's, or one."""
        return found if self._cadence_s is None else self._cadence_s


def _bad(broken: list[FrameError], path: Path) -> Iterator[BadFrame]:
    """What is `broken` of `path`, which is empty then."""
    while broken:
        yield BadFrame(path.name, str(broken.pop(0)).replace(str(path), path.name))
