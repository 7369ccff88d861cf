"""From a file or a message's bytes to frames, for every source alike.

One .npy or .png is one frame, its numbers taken as they are. Everything else goes through the
readers (`stpl_core.readers`): units, states of pixels and grid are theirs, and one file may hold
many frames.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError, StplError, UsageError
from stpl_core.frames import (
    FRAME_SUFFIXES,
    Frame,
    FrameShape,
    as_frame,
    physical_values,
)
from stpl_core.grid import pixel_grid
from stpl_core.reader import (
    CREDITS,
    NO_DATA,
    NO_ECHO,
    VALUE,
    Piece,
    Quantity,
    ReadOptions,
    state_of,
)
from stpl_core.readers.fit import Fit, Resize, fit_for, resized_note
from stpl_core.readers.images import SUFFIXES as PICTURES
from stpl_core.readers.model_input import model_input
from stpl_core.readers.opening import read_pieces
from stpl_core.readers.packed import PACKED
from stpl_core.readers.plain import has_holes, read_stored
from stpl_core.readers.registry import Choice, all_readers, choose, load_reader
from stpl_core.safety.budget import most_values_of_file
from stpl_core.safety.half_written import scratch_directory
from stpl_core.same_grid import check_same_grid
from stpl_runtime.source import Seen, SourceSpec
from stpl_runtime.timing import EPOCH, NameClock, time_text

_MAGIC = (
    (b"\x93NUMPY", ".npy"),
    (b"\x89PNG", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"BM", ".bmp"),
    (b"\x89HDF\r\n\x1a\n", ".h5"),
    (b"CDF", ".nc"),
    (b"GRIB", ".grib2"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"II+\0", ".tif"),
    (b"P5", ".pgm"),
    (b"PK\x03\x04", ".npz"),
)
"""First bytes -> the suffix that a name without one is read by."""


class Decoder:
    """Decodes what one source brings, as its `SourceSpec` says."""

    def __init__(self, spec: SourceSpec, resize: Resize = "none") -> None:
        """Prepare.

        Args:
            spec: the frames that are expected.
            resize: for frames of another size, where `spec.fit` says nothing.

        Raises:
            UsageError: a wrong time format, or no such reader.
        """
        self._spec, self._resize = spec, resize
        self.clock = NameClock(spec.time_format, spec.cadence_s, mtime=spec.mtime)
        if spec.reader is not None:
            load_reader(spec.reader)

    def from_file(self, path: Path, time: datetime | None = None) -> list[Frame]:
        """The frames of a file, oldest first.

        Args:
            path: a whole file.
            time: when its frame was observed, where neither its content nor its name has it.

        Raises:
            FrameError: it cannot be decoded or used; names the file.
            MissingExtraError: its reader's library is not installed.
            UsageError: its name ends in an index and no cadence is known.
        """
        return self.fitted(self.stored(path), path, time)

    def stored(self, path: Path) -> NDArray[Any] | list[Piece]:
        """What a file holds; where this goes well, the file is whole.

        Raises:
            FrameError: it cannot be decoded.
            MissingExtraError: its reader's library is not installed.
        """
        with _named_shortly(path):
            if self._is_plain(path):
                return read_stored(path, self._spec.shape[0])
            return list(_within(self.pieces(self.choose(path), path), path))

    def fitted(
        self, stored: NDArray[Any] | list[Piece], path: Path, time: datetime | None = None
    ) -> list[Frame]:
        """The frames of what was `stored` in a file; see `from_file`.

        Raises:
            FrameError: it cannot be used.
            UsageError: its name ends in an index and no cadence is known.
        """
        with _named_shortly(path):
            if not isinstance(stored, list):
                return [self._plain(stored, path, time)]
            if self._spec.look is not None:
                return list(self._as_they_come(stored, path, time, self._spec.look))
            count = sum(len(piece.frames) for piece in stored)
            if not count:
                raise FrameError(f"{path} holds no frame", expected="at least one", fix="check it")
            if count == 1 and (self.clock.stated or stored[0].time is None):
                times = [self.clock.time(path, time)]
            else:
                times = list(self._times(stored, path, time))
            frames = [frame for piece in stored for frame in self.frames(piece, path.name)]
            return [replace(frame, valid_time=at) for frame, at in zip(frames, times, strict=True)]

    def from_bytes(self, content: bytes, name: str, time: datetime | None = None) -> list[Frame]:
        """The frames of a message or a download; see `from_file`.

        Args:
            content: what a file of this kind holds.
            name: its name, topic or URL path; the end says what it is (else the first bytes do),
                the rest maybe the time.
            time: as in `from_file`.
        """
        with _laid_down(content, _file_name(name, content), time) as path:
            return self.from_file(path, time)

    @property
    def options(self) -> ReadOptions:
        """What the user says about reading."""
        return replace(self._spec.reading, time_format=self._spec.time_format)

    def choose(self, path: Path) -> Choice:
        """Which reader reads `path`; see `stpl_core.readers.registry.choose`."""
        return choose(path, self._spec.reader)

    def pieces(
        self, choice: Choice, path: Path, broken: Callable[[FrameError], None] | None = None
    ) -> Iterator[Piece]:
        """What its reader reads in one file, folder or store, piece by piece.

        Args:
            choice: its reader.
            path: where it lies.
            broken: called with broken files of a folder that is read as one; None: they raise.

        Raises:
            FrameError: it cannot be decoded; names the file.
        """
        variable = self._spec.variable
        has_colours = choice.word in ("video", "pictures") and self._spec.shape[0] == 3
        if variable is None and has_colours and (choice.word == "video" or self._spec.look):
            variable = "rgb"
        options = replace(self.options, variable=variable, broken=broken)
        return read_pieces(choice, path, options)

    def frames(self, piece: Piece, name: str) -> Iterator[Frame]:
        """The frames of a piece, of the time EPOCH where the data has none.

        Raises:
            FrameError: units, size or values that do not fit the model.
        """
        codec = self._spec.codec
        size = (piece.frames.shape[1], piece.frames.shape[2], piece.frames.shape[3])
        fit = self._fit_for(size, name)
        fitted = model_input(
            piece.frames, piece.state, piece.quantity, piece.grid, codec, fit, name
        )
        check_same_grid(fitted.grid, self._spec.grids, name)
        notes = {key: value for key, value in piece.notes.items() if key in CREDITS}
        if self._spec.fit is None and fit.size is not None:
            notes["resized"] = resized_note(size, fit)
        for n in range(len(fitted.frames)):
            time = EPOCH if piece.time is None else datetime_of(piece.time[n])
            where = name if len(fitted.frames) == 1 else f"{name} ({time_text(time)})"
            data, mask = fitted.frame(n, where)
            yield Frame(
                time,
                data,
                mask=mask,
                grid=fitted.grid,
                standard_name=fitted.standard_name,
                notes=notes,
                source_id=name,
            )

    def _fit_for(self, size: FrameShape, name: str) -> Fit:
        averages = ", or --source-option resize=area averages them down"
        return fit_for(size, self._spec.shape, self._spec.fit, self._resize, name, averages)

    def _as_they_come(
        self,
        pieces: list[Piece],
        path: Path,
        known: datetime | None,
        look: Callable[[Seen], None],
    ) -> Iterator[Frame]:
        """The frames for no model, in their own unit and size."""
        count = sum(len(piece.frames) for piece in pieces)
        word = self.choose(path).word
        try:
            alone = count == 1 and (self.clock.stated or pieces[0].time is None)
            times = [self.clock.time(path, known)] if alone else [*self._times(pieces, path, known)]
        except UsageError:  # which FrameError is, too
            times = []
        at = iter(times or [EPOCH] * count)
        for piece in pieces:
            for given, state in zip(piece.frames, piece.state, strict=True):
                is_grey = word == "pictures" and bool((given == given[:1]).all())
                frame = given[:1] if is_grey else given
                values = frame[:, state == VALUE]
                look(
                    Seen(
                        shape=(frame.shape[0], frame.shape[1], frame.shape[2]),
                        quantity=piece.quantity.name,
                        units=piece.quantity.units,
                        form=f"{word}, {path.suffix.lstrip('.') or 'no suffix'}",
                        low=float(values.min()) if values.size else None,
                        high=float(values.max()) if values.size else None,
                        grid=piece.grid,
                        has_time=bool(times),
                    )
                )
                yield Frame(next(at), frame, mask=state != NO_DATA, source_id=path.name)

    def _is_plain(self, path: Path) -> bool:
        if self._spec.reader is not None or self._spec.look is not None:
            return False
        suffix = path.suffix.lower()
        if self._spec.shape[0] != 1:
            return suffix in FRAME_SUFFIXES or (suffix in PICTURES and suffix != ".pgm")
        return suffix in FRAME_SUFFIXES and not (suffix == ".png" and has_holes(path))

    def _plain(self, array: NDArray[Any], path: Path, time: datetime | None) -> Frame:
        """The frame of a .npy or a picture, in the codec's unit whatever that is."""
        spec, name = self._spec, path.name
        channels_first = _channels_first(array, spec.shape[0])
        if channels_first.ndim != 3 or channels_first.shape == spec.shape:
            array = as_frame(array, spec.shape, name)
            return Frame(
                self.clock.time(path, time),
                physical_values(array, spec.codec, name),
                source_id=name,
            )
        self._fit_for(channels_first.shape, name)  # a wrong size is reported before wrong values
        values = physical_values(channels_first, spec.codec, name)[None]  # (1, C, H, W)
        codec = spec.codec
        decibels = codec.units == "dBZ"  # whose means need to know where there is no echo
        quantity = Quantity(
            codec.quantity, codec.units, no_echo=codec.no_rain_value if decibels else None
        )
        state = state_of(values)
        if decibels:
            state[(values <= np.float32(codec.no_rain_value)).all(axis=1)] = NO_ECHO
        grid = pixel_grid(*values.shape[2:])
        piece = Piece(values, state, grid, quantity, name)
        (frame,) = self.frames(piece, name)
        return replace(frame, valid_time=self.clock.time(path, time))

    def _times(
        self, pieces: Iterable[Piece], path: Path, known: datetime | None
    ) -> Iterator[datetime]:
        """Of every frame: the data's own, or counted from that of the file."""
        start_s = next_s = 0.0  # of the sequence, and of the frame that comes next
        for piece in pieces:
            if piece.time is not None:
                yield from map(datetime_of, piece.time)
                continue
            step_s = piece.cadence_s or self._spec.cadence_s
            if step_s is None:
                raise FrameError(
                    f"{path} holds many frames and says no times",
                    expected="times, or a cadence",
                    fix="--cadence SECONDS",
                )
            begin = self.clock.time(path, known)
            for n in range(len(piece.frames)):
                if piece.elapsed_s is not None:
                    if piece.begins is not None and piece.begins[n]:
                        start_s = next_s
                    next_s = start_s + float(piece.elapsed_s[n])
                yield begin + timedelta(seconds=next_s)
                next_s += step_s


@lru_cache(maxsize=1)
def file_suffixes() -> tuple[str, ...]:
    """The ends of the names of all files that may hold frames, lower case."""
    known = [suffix for reader in all_readers().values() for suffix in reader.SUFFIXES]
    packed = [f"{suffix}{end}" for suffix in (*FRAME_SUFFIXES, *known) for end in PACKED]
    return tuple(dict.fromkeys([*FRAME_SUFFIXES, *known, *packed]))


def datetime_of(time: np.datetime64) -> datetime:
    """The same moment, to the microsecond, UTC.

    Raises:
        FrameError: it is none (NaT), or beyond the years 1 to 9999.
    """
    try:
        return EPOCH + timedelta(microseconds=int(time.astype("datetime64[us]").astype(np.int64)))
    except OverflowError as error:
        raise FrameError(
            f"a frame has the time {time}",
            expected="a time of the years 1 to 9999",
            fix="look at the time coordinate of the file",
        ) from error


def _within(pieces: Iterable[Piece], path: Path) -> Iterator[Piece]:
    """The pieces of a file whose frames are all read at once, no more than the budget allows.

    Raises:
        FrameError: they are more.
    """
    count = 0
    for piece in pieces:
        count += piece.frames.size
        if count > most_values_of_file():
            raise FrameError(
                f"{path} holds more than {most_values_of_file():,} values",
                expected="a frame or a few",
                fix="--max-pixels, if you know who made it; or stpl-deploy data convert it first",
            )
        yield piece


@contextmanager
def _named_shortly(path: Path) -> Iterator[None]:
    """Call the file by its name in what is raised: where it lies means nothing to the reader.

    What nobody thought of in a file is a fault of this one, and no end of the stream.
    """
    try:
        yield
    except FrameError as error:
        found, fix = (text.replace(str(path), path.name) for text in (error.found, error.fix))
        raise FrameError(found, expected=error.expected, fix=fix) from error
    except StplError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FrameError(
            f"{path.name} cannot be used: {reason.replace(str(path), path.name)}",
            expected="frames with times, on a grid",
            fix="look at it with stpl-deploy data inspect",
        ) from error


@contextmanager
def _laid_down(content: bytes, name: str, time: datetime | None) -> Iterator[Path]:
    """A file for a moment, since readers want one.

    Raises:
        FrameError: there is no room for it; a full disk costs frames, and not the stream.
    """
    with ExitStack() as stack:
        try:
            path = stack.enter_context(scratch_directory("frame")) / name
            path.write_bytes(content)
            if time is not None:
                os.utime(path, (time.timestamp(), time.timestamp()))
        except OSError as error:
            raise FrameError(
                f"{name} has no room in {tempfile.gettempdir()}: {error.strerror or error}",
                expected=f"{len(content):,} bytes, for a moment",
                fix="free some space there, or set TMPDIR",
            ) from error
        yield path


def _file_name(name: str, content: bytes) -> str:
    """The last part of `name`, with the suffix of the content where it has none that is known."""
    last = PurePosixPath(name).name or "frame"
    if last.lower().endswith(file_suffixes()):
        return last
    for magic, suffix in _MAGIC:
        if content.startswith(magic):
            return f"{last}{suffix}"
    return last


def _channels_first(array: NDArray[Any], channels: int) -> NDArray[Any]:
    """`(C, H, W)` of a picture of any size; as it is where it is none."""
    if array.ndim == 2 and channels == 1:
        return array[None]
    if array.ndim == 3 and array.shape[0] != channels and array.shape[-1] == channels:
        return np.moveaxis(array, -1, 0)
    return array
