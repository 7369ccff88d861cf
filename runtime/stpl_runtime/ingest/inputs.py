"""What `predict` reads: a folder of frames, an array file, or what a reader reads."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import FrameError, UsageError
from stpl_core.frames import read_sequences
from stpl_core.grid import Grid
from stpl_core.readers.names import visible_files
from stpl_core.readers.plain import has_holes, read_frame
from stpl_core.reading.understood import Understood
from stpl_runtime.nowcasting.predict import newest_frames
from stpl_runtime.source import SourceSpec
from stpl_runtime.sources.folder import frame_files
from stpl_runtime.timing import (
    NameClock,
    TimeGrid,
    index_of,
    time_from_text,
    time_text,
    utc_text,
)


@dataclass(frozen=True)
class Context:
    """The newest T frames of one or more sequences."""

    frames: Array
    """`(N, T, C, H, W)`, physical units."""
    times: tuple[datetime, ...] = ()
    """T times; empty where the frames carry none."""
    cadence_s: float | None = None
    """Seconds between frames, where it is known."""
    source_id: str = ""
    """The file that the newest frame came from."""
    grid: Grid | None = None
    """Where the pixels lie, where the frames have it."""
    observed: NDArray[np.bool_] | None = None
    """`(H, W)`, False where the newest frame had no data; None where it had everywhere."""
    context_observed: NDArray[np.bool_] | None = None
    """`(T, H, W)`, the same of each frame; None where all had data everywhere."""
    standard_name: str = ""
    """CF standard name of the quantity, where the frames have it."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """`institution`, `licence`, `attribution`, where the frames have it."""

    def as_seen(self) -> Array:
        """The frames, NaN where nothing was observed: what a codec turns into model units."""
        seen = self.context_observed
        if seen is None:
            return self.frames
        return np.where(seen[:, None], self.frames, np.float32(np.nan))  # (N, T, C, H, W)

    def understood(self, codec: FrameCodec) -> Understood:
        """What was read, as the model sees it; of the newest frames alone."""
        frames = self.frames
        return Understood(
            sequences=len(frames),
            frames=len(frames) * frames.shape[1],
            shape=(frames.shape[2], frames.shape[3], frames.shape[4]),
            low=float(np.nanmin(frames)),
            high=float(np.nanmax(frames)),
            quantity=codec.quantity,
            units=codec.units,
            cadence_s=self.cadence_s,
        )


def needs_reader(path: Path) -> bool:
    """Whether a reader reads `path`: no folder of .npy and .png, and no plain array."""
    if path.is_dir():
        frames = frame_files(path)
        if any(file.suffix.lower() == ".png" and has_holes(file) for file in frames[-1:]):
            return True
        return path.suffix.lower() == ".zarr" or not (frames or not visible_files(path))
    if path.suffix.lower() != ".npz":
        return path.is_file() and path.suffix.lower() != ".npy"
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False  # reported as a plain array's fault
    return "dataset.npy" in names or {"time.npy", "units.npy"} <= names


def issue_time(text: str | None) -> datetime | None:
    """What `--at` says; None where nothing.

    Raises:
        UsageError: it is no time.
    """
    try:
        return None if text is None else time_from_text(text)
    except ValueError:
        raise UsageError(
            f"--at {text}", expected="a time in ISO 8601, UTC", fix="--at 2026-05-01T12:00"
        ) from None


def without_times(where: object, until: datetime) -> FrameError:
    """The error of frames that an issue time cannot choose from."""
    return FrameError(
        f"{where} has no times, to find {time_text(until)}",
        expected="frames with times, in their names or in the files",
        fix="leave --at out, or --time-format PATTERN",
    )


def check_issue(found: datetime | None, until: datetime, cadence_s: float | None) -> None:
    """Refuse the newest frame where it is not that of the issue time.

    Raises:
        FrameError: all are later, or a frame is missing before it.
    """
    if found is None or (cadence_s and (until - found).total_seconds() >= cadence_s):
        raise FrameError(
            f"no frame of {time_text(until)}"
            + (f": the last before it is of {time_text(found)}" if found else ", nor before it"),
            expected="one, not a whole cadence older",
            fix=f"--at {utc_text(found)}" if found else "another --at, or leave it out",
        )


def read_context(
    path: Path, context: int, spec: SourceSpec, until: datetime | None = None
) -> Context:
    """Read the newest `context` frames.

    Args:
        path: a folder of frames, or a .npy or .npz of `(S, C, H, W)` or `(N, S, C, H, W)`.
        context: T.
        spec: the frames that are expected, and how their time is found.
        until: the issue time: no later frame is read; None: the newest frame's.

    Raises:
        FrameError: too few frames, a hole between them, or frames that do not fit.
        UsageError: no such file or folder, or an empty folder.
    """
    if path.is_dir():
        return _from_folder(path, context, spec, until)
    if path.suffix.lower() not in (".npy", ".npz"):
        raise UsageError(
            f"no file or folder {path}",
            expected="a folder of frames, or a file of them in a format of docs/data.md",
            fix="check the path",
        )
    if until is not None:
        raise without_times(path, until)
    stored = read_sequences(path, spec.shape, spec.codec, spec.reading.layout)  # (N, S, C, H, W)
    frames = newest_frames(stored, context)
    return Context(frames, cadence_s=spec.cadence_s, source_id=path.name)


def _from_folder(folder: Path, context: int, spec: SourceSpec, until: datetime | None) -> Context:
    files = frame_files(folder)
    if not files:
        raise FrameError(
            f"{folder} has no frames",
            expected=f"at least {context}, as .npy, .png or in another format of docs/data.md",
            fix="put frames into it, or stpl-deploy stream, which waits for them",
        )
    if len(files) < context:
        raise FrameError(
            f"{folder} has {len(files)} frame(s)",
            expected=f"at least {context}, which this model reads",
            fix=f"give {context} consecutive frames",
        )
    timed = _timed(files, spec)
    if until is not None:
        timed = _until(timed, folder, until, context, spec.cadence_s)
    if timed is None:
        recent = _by_index(files, context)
        times: tuple[datetime, ...] = ()
        cadence_s = spec.cadence_s
    else:
        timed = timed[-context:]
        recent, times = [path for _, path in timed], tuple(time for time, _ in timed)
        cadence_s = _even(times, recent, spec.cadence_s)
    frames = np.stack([read_frame(path, spec.shape, spec.codec) for path in recent])[None]
    return Context(frames, times, cadence_s, recent[-1].name)


def _until(
    timed: list[tuple[datetime, Path]] | None,
    folder: Path,
    until: datetime,
    context: int,
    cadence_s: float | None,
) -> list[tuple[datetime, Path]]:
    if timed is None:
        raise without_times(folder, until)
    known = [pair for pair in timed if pair[0] <= until]
    gaps = [(b[0] - a[0]).total_seconds() for a, b in itertools.pairwise(timed)]
    check_issue(known[-1][0] if known else None, until, cadence_s or float(np.median(gaps or [0])))
    if len(known) < context:
        raise FrameError(
            f"{folder} has {len(known)} frame(s) up to {time_text(until)}",
            expected=f"at least {context}, which this model reads",
            fix=f"--at {utc_text(timed[-1][0])}, or leave it out",
        )
    return known


def _timed(files: Sequence[Path], spec: SourceSpec) -> list[tuple[datetime, Path]] | None:
    """Files in the order of time; None where they are only numbered."""
    numbered = spec.time_format is None and not spec.mtime and spec.cadence_s is None
    clock = NameClock(spec.time_format, spec.cadence_s or 1.0, mtime=spec.mtime)
    timed = sorted((clock.time(path), path) for path in files)
    return None if numbered and clock.indexed else timed


def _by_index(files: Sequence[Path], context: int) -> list[Path]:
    """The newest numbered files, in order.

    Raises:
        FrameError: a number is missing or there twice.
    """
    recent = sorted((index_of(path) or 0, path) for path in files)[-context:]
    steps = {after[0] - before[0] for before, after in itertools.pairwise(recent)}
    if len(steps) > 1 or 0 in steps:
        raise FrameError(
            f"the numbers of {recent[0][1].name} to {recent[-1][1].name} are not evenly spaced",
            expected="one frame for each step of time",
            fix="add the missing frame or remove the repeated one",
        )
    return [path for _, path in recent]


def _even(times: Sequence[datetime], files: Sequence[Path], stated_s: float | None) -> float | None:
    """The cadence of consecutive frames.

    Raises:
        FrameError: a frame is missing, there twice, or off the grid.
    """
    if len(times) == 1:
        return stated_s
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    cadence_s = stated_s or float(np.median(gaps))
    grid = TimeGrid(cadence_s, times[0]) if cadence_s > 0 else None
    for n, time in enumerate(times):
        if grid is None or grid.slot(time) != n:
            raise FrameError(
                f"{files[n].name} is dated {time_text(time)}, and the frame before it "
                f"{time_text(times[max(0, n - 1)])}",
                expected=f"one frame every {cadence_s:g} s",
                fix="add the missing frame or remove the repeated one; or give another "
                "--cadence SECONDS",
            )
    return cadence_s
