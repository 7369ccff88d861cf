"""Which windows of an archive are complete, and how their frames come to the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.errors import FrameError, UsageError
from stpl_core.frames import masks_of
from stpl_core.option import flat
from stpl_core.options import BackfillOptions, FrameOptions
from stpl_core.reader import CREDITS, Mask, Piece
from stpl_core.readers.fit import fit_for
from stpl_core.readers.model_input import ModelInput, model_input
from stpl_core.windows.located import ArchiveFiles, Located
from stpl_core.windows.placing import rows_after, rows_before
from stpl_runtime.engines.tiled import wanted_size
from stpl_runtime.ingest.archive import ArchiveSpec, archive_spec
from stpl_runtime.ingest.decoding import datetime_of
from stpl_runtime.ingest.inputs import Context
from stpl_runtime.ingest.newest import source_spec
from stpl_runtime.nowcasting.window import check_cadence
from stpl_runtime.source import SourceSpec

EMPTY = "no data all over"
"""Stands for a frame that was read and holds nothing."""


@dataclass(frozen=True)
class Taken:
    """A frame as the model is given it."""

    frame: Array
    """`(C, H, W)` physical."""
    mask: Mask | None
    """`(H, W)`; None where all was observed."""


Frames = Mapping[int, "Taken | FrameError | str"]
"""Of each frame what the model is given, `EMPTY`, or why it cannot be used."""


class Windows:
    """The complete windows of an archive."""

    def __init__(self, bundle: Bundle, options: BackfillOptions) -> None:
        """Open the archive; `place` comes next.

        Args:
            bundle: of the model that will read it.
            options: how.

        Raises:
            FrameError, UsageError: it cannot be read so.
        """
        manifest = bundle.manifest
        check_cadence(options.cadence)
        reading = FrameOptions(**flat(options.reading), cadence=options.cadence)
        stated, size = options.reading.for_readers(), wanted_size(options.domain)
        self._context = manifest.context
        self._spec: SourceSpec = source_spec(manifest, reading, options.domain)
        self._how: ArchiveSpec = archive_spec(
            manifest.recipe, reading.reader, reading.variable, size, stated
        )
        how = replace(self._how.reading, variable=self._how.variable)
        if self._spec.time_format is not None:
            how = replace(how, time_format=self._spec.time_format)
        self.files = ArchiveFiles(options.archive, self._how.reader, how)
        self.located: Located
        self.rows: NDArray[np.int64]
        """`(N, T)`, the frames of each complete window."""
        self.incomplete: int
        """Frames that end no complete window."""
        self.cadence_s: float
        self._ahead: NDArray[np.int64] | None = None

    def place(self, located: Located) -> None:
        """Find the windows.

        Raises:
            UsageError: the archive has no times.
            FrameError: it has no complete window.
        """
        where = self.files.path
        if not located.has_times:
            raise UsageError(
                f"{where} has no times, and so no issue times",
                expected="frames with times, in their names or in the files",
                fix="--time-format PATTERN, or stpl-deploy evaluate for sequences",
            )
        found = None if located.cadence_s is None else located.cadence_s * self._how.every
        cadence_s = self._spec.cadence_s or found
        if cadence_s is None:
            raise UsageError(
                f"{where} has one frame, and the bundle states no cadence",
                expected="seconds between frames",
                fix="--cadence 300",
            )
        rows, whole = rows_before(located.time, located.sequence, self._context, cadence_s)
        if not whole.any():
            raise FrameError(
                f"{where} has no {self._context} frames in a row, one every {cadence_s:g} s",
                expected="at least one complete window",
                fix="more frames; --cadence SECONDS if that is not it",
            )
        self.located, self.cadence_s = located, cadence_s
        self.rows, self.incomplete = rows[whole], int((~whole).sum())

    def first(self) -> tuple[ModelInput, Mapping[str, str]]:
        """The newest frame of the first window, and what is stated with it."""
        _, piece = next(iter(self.files.pieces(self.located, self.rows[0, -1:])))
        notes = {key: str(piece.notes[key]) for key in CREDITS if key in piece.notes}
        return self._fitted(piece), notes

    def ahead(self, windows: range, horizon: int) -> NDArray[np.int64]:
        """`(n, K)`, the frames that came after some windows; -1 where there is none."""
        if self._ahead is None or self._ahead.shape[1] != horizon:
            located = self.located
            after = rows_after(located.time, located.sequence, horizon, self.cadence_s)  # (F, K)
            self._ahead = after[self.rows[:, -1]]
        return self._ahead[windows.start : windows.stop]

    def read(self, windows: range, horizon: int = 0) -> Frames:
        """The frames of some windows, each once, by their number in the archive.

        Args:
            windows: which.
            horizon: so many frames after each, too.

        Raises:
            EnvironmentFault: a file is not there any more.
        """
        frames = np.unique(self.rows[windows.start : windows.stop])
        if horizon:
            frames = np.union1d(frames, self.ahead(windows, horizon))
            frames = frames[frames >= 0]
        taken: dict[int, Taken | FrameError | str] = {}
        of_file = self.located.of_file[frames]
        for number in dict.fromkeys(of_file.tolist()):
            own = frames[of_file == number]
            try:
                for frame, piece in self.files.pieces(self.located, own):
                    taken[frame] = self._taken(frame, piece)
            except FrameError as error:
                taken |= {frame: error for frame in own.tolist() if frame not in taken}
        return taken

    def context(self, window: int, taken: Frames) -> Context | FrameError | str:
        """What a nowcast is made from; `EMPTY` or an error where a frame is so."""
        rows = self.rows[window].tolist()
        frames: list[Taken] = []
        for row in rows:
            one = taken[row]
            if not isinstance(one, Taken):
                return one
            frames.append(one)
        times = self.located.time[rows]
        return Context(
            frames=np.stack([one.frame for one in frames])[None],  # (1, T, C, H, W)
            times=tuple(datetime_of(time) for time in times),
            cadence_s=self.cadence_s,
            observed=frames[-1].mask,
            context_observed=masks_of([one.mask for one in frames], self._spec.shape),
        )

    def _taken(self, frame: int, piece: Piece) -> Taken | FrameError | str:
        try:
            fitted = self._fitted(piece)
            if not fitted.observed[0].any():
                return EMPTY
            return Taken(*fitted.frame(0, self.located.name(frame)))
        except FrameError as error:
            return error

    def _fitted(self, piece: Piece) -> ModelInput:
        spec, where = self._spec, piece.source
        channels, height, width = piece.frames.shape[1:]
        fit = fit_for((channels, height, width), spec.shape, self._how.fit, "none", where)
        return model_input(
            piece.frames, piece.state, piece.quantity, piece.grid, spec.codec, fit, where
        )
