"""Where each frame of an archive lies, so that any of them is read again without the others.

For archives larger than memory: `locate` reads every file once and keeps its times alone, and
`read` opens only the files that hold what is wanted. What `data convert` wrote is read as it lies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import EnvironmentFault, FrameError
from stpl_core.reader import Piece, ReadOptions, Times
from stpl_core.readers.converted import pieces_of_dataset
from stpl_core.readers.dataset import cadence_of
from stpl_core.readers.join import Joiner
from stpl_core.readers.names import in_time_order
from stpl_core.readers.opening import open_as_it_lies, read_pieces
from stpl_core.readers.registry import Choice, choose

if TYPE_CHECKING:
    import xarray as xr

_BLOCK_VALUES = 2**22
"""Values of a converted archive that are read at a time."""
_NAMED = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    """The frames of an archive in the order of time, without their values."""

    time: Times
    """`(F,)`."""
    sequence: NDArray[np.int32]
    """`(F,)`; frames of two sequences never belong to one window."""
    of_file: NDArray[np.int32]
    """`(F,)`, number in `files`."""
    row: NDArray[np.int64]
    """`(F,)`, which frame of its file, in the order in which its reader gives them."""
    files: tuple[str, ...]
    """Below the archive's path; one empty name where the archive is a single file or store."""
    has_times: bool
    """They are those of the data, not counted."""
    cadence_s: float | None
    unreadable: tuple[str, ...] = ()
    """Files that could not be read, and are left out."""

    @property
    def count(self) -> int:
        """F."""
        return len(self.time)

    def name(self, frame: int) -> str:
        """The file of a frame with its time, for messages."""
        time = np.datetime_as_string(self.time[frame].astype("datetime64[s]"))
        return f"{self.files[self.of_file[frame]]} ({time}Z)".lstrip()

    def save(self, file: BinaryIO) -> None:
        """Write it as .npz."""
        np.savez_compressed(
            file,
            time=self.time.astype(np.int64),
            sequence=self.sequence,
            of_file=self.of_file,
            row=self.row,
            files=np.array(self.files),
            unreadable=np.array(self.unreadable, str),
            facts=np.array([self.has_times, self.cadence_s or np.nan], np.float64),
        )

    @classmethod
    def load(cls, path: Path) -> Located:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            has_times, cadence_s = stored["facts"].tolist()
            return cls(
                time=stored["time"].astype("datetime64[ns]"),
                sequence=stored["sequence"],
                of_file=stored["of_file"],
                row=stored["row"],
                files=tuple(stored["files"].tolist()),
                has_times=bool(has_times),
                cadence_s=None if np.isnan(cadence_s) else cadence_s,
                unreadable=tuple(stored["unreadable"].tolist()),
            )


class ArchiveFiles:
    """An archive whose frames are read a few at a time."""

    def __init__(self, path: Path, reader: str | None, options: ReadOptions) -> None:
        """Find out what is there.

        Args:
            path: a file, a folder, or what `data convert` wrote.
            reader: word of a reader; None finds it.
            options: how it reads.

        Raises:
            FrameError: nothing is there that it could read.
        """
        self.path, self._options = path, options
        self._choice: Choice = choose(path, reader)
        own = open_as_it_lies(self._choice) if options.variable is None else None
        self._own: xr.Dataset | None = own

    def locate(self, on_progress: Callable[[int, int], None] = lambda done, of: None) -> Located:
        """Read every file once, and keep where its frames lie.

        A file that cannot be read is left out: ten years of data have some.

        Args:
            on_progress: called with how many files were read, and of how many.

        Raises:
            FrameError: no file can be read, or one does not fit the others.
        """
        if self._own is not None:
            return self._located_as_it_lies(self._own)
        joiner = Joiner()
        paths = in_time_order(self._choice.paths, self._options)
        columns: list[tuple[Times, NDArray[np.int32], int, int]] = []
        unreadable: list[str] = []
        first: FrameError | None = None
        for number, path in enumerate(paths):
            on_progress(number, len(paths))
            row = 0
            for piece in self._readable(path, unreadable):
                if isinstance(piece, FrameError):
                    first = first or piece
                elif len(piece.frames):
                    joined = joiner.add(piece)
                    columns.append((joined.time, joined.sequence, number, row))
                    row += len(piece.frames)
        on_progress(len(paths), len(paths))
        if joiner.first is None:
            raise first or FrameError(
                f"{self.path} holds no frame", expected="at least one", fix="check the path"
            )
        if len(unreadable) > _NAMED:
            _log.warning("%d files cannot be read: left out", len(unreadable))
        return self._in_order(joiner.first, columns, paths, unreadable)

    def pieces(self, located: Located, frames: NDArray[np.int64]) -> Iterator[tuple[int, Piece]]:
        """Read some frames, each as a piece of its own, file by file.

        Args:
            located: from `locate`.
            frames: which ones, rising.

        Yields:
            The number of the frame, and what its reader gives.

        Raises:
            FrameError: a file cannot be read, or has fewer frames than it had.
            EnvironmentFault: a file is not there any more.
        """
        if self._own is not None:
            for frame in frames.tolist():
                part = self._own.isel(time=slice(int(located.row[frame]), located.row[frame] + 1))
                yield frame, next(iter(pieces_of_dataset(part, _BLOCK_VALUES)))
            return
        for number in dict.fromkeys(located.of_file[frames].tolist()):
            own = frames[located.of_file[frames] == number]
            yield from self._of_file(located, own, self._path(located.files[number]))

    def check_same(self, located: Located) -> None:
        """Refuse an archive that is another one than it was.

        Raises:
            FrameError: a converted archive with other times.
        """
        if self._own is None:
            return
        times = self._own["time"].values.astype("datetime64[ns]")
        most = int(located.row.max(initial=-1))
        if most >= len(times) or not np.array_equal(times[located.row], located.time):
            raise FrameError(
                f"{self.path} has other frames than when the store was begun",
                expected=f"the same {located.count} times",
                fix="another --out",
            )

    def added_since(self, located: Located) -> int:
        """How many files, or frames of a converted archive, came after `locate`."""
        if self._own is not None:
            return max(0, int(self._own.sizes["time"]) - located.count)
        known = {*located.files, *located.unreadable}
        return sum(self._name(path) not in known for path in self._choice.paths)

    def _located_as_it_lies(self, own: xr.Dataset) -> Located:
        time = own["time"].values.astype("datetime64[ns]")
        found = own.attrs.get("cadence_s")
        return Located(
            time=time,
            sequence=own["sequence"].values.astype(np.int32),
            of_file=np.zeros(len(time), np.int32),
            row=np.arange(len(time)),
            files=("",),
            has_times=own.attrs["time_is"] == "observed",
            cadence_s=None if found is None else float(found),
        )

    def _readable(self, path: Path, unreadable: list[str]) -> Iterator[Piece | FrameError]:
        """The pieces of a file; of one that cannot be read, the error at its end."""
        try:
            yield from read_pieces(self._choice, path, self._options)
        except FrameError as error:
            unreadable.append(self._name(path))
            if len(unreadable) <= _NAMED:
                _log.warning("%s: left out", error)
            yield error

    def _in_order(
        self,
        piece: Piece,
        columns: list[tuple[Times, NDArray[np.int32], int, int]],
        paths: list[Path],
        unreadable: list[str],
    ) -> Located:
        time = np.concatenate([times for times, *_ in columns])  # (F,)
        order = np.argsort(time, kind="stable")
        sequence = np.concatenate([numbers for _, numbers, *_ in columns])[order]
        file = np.repeat([n for *_, n, _ in columns], [len(one) for one, *_ in columns])
        row = np.concatenate([at + np.arange(len(times)) for times, _, _, at in columns])
        cadence_s = cadence_of(time[order], sequence)
        return Located(
            time=time[order],
            sequence=sequence,
            of_file=file.astype(np.int32)[order],
            row=row[order],
            files=tuple(self._name(path) for path in paths),
            has_times=piece.time is not None,
            cadence_s=piece.cadence_s if cadence_s is None else cadence_s,
            unreadable=tuple(unreadable),
        )

    def _of_file(
        self, located: Located, frames: NDArray[np.int64], path: Path
    ) -> Iterator[tuple[int, Piece]]:
        if not path.exists():
            raise EnvironmentFault(
                f"{path} is not there any more",
                expected="the files that the archive had",
                fix="mount or restore it, then run the same command again",
            )
        wanted = dict(zip(located.row[frames].tolist(), frames.tolist(), strict=True))
        row = 0
        for piece in read_pieces(self._choice, path, self._options):
            for n in range(len(piece.frames)):
                frame = wanted.pop(row + n, None)
                if frame is not None:
                    yield frame, _one_of(piece, n)
            row += len(piece.frames)
            if not wanted:
                return
        raise FrameError(
            f"{path} has {row} frames", expected="as many as it had", fix="another --out"
        )

    def _name(self, path: Path) -> str:
        return "" if path == self.path else str(path.relative_to(self.path))

    def _path(self, name: str) -> Path:
        return self.path / name if name else self.path


def _one_of(piece: Piece, n: int) -> Piece:
    """Frame `n` of a piece, alone."""
    return Piece(
        frames=piece.frames[n : n + 1],
        state=piece.state[n : n + 1],
        grid=piece.grid,
        quantity=piece.quantity,
        source=piece.source,
        time=None if piece.time is None else piece.time[n : n + 1],
        cadence_s=piece.cadence_s,
        notes=piece.notes,
    )
