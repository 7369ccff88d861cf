"""Making a block: the frames of its windows read, a nowcast of each, written into the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.errors import AccuracyError, FrameError, UsageError
from stpl_core.options import BackfillOptions
from stpl_core.safety.open_signed import open_trusted
from stpl_runtime.backfilling.scores import BlockScores
from stpl_runtime.backfilling.store import FAILED, INCOMPLETE, WRITTEN, Store, Writer
from stpl_runtime.backfilling.windows import Frames, Taken, Windows
from stpl_runtime.engine import Session, precision_of
from stpl_runtime.ingest.inputs import Context
from stpl_runtime.nowcasting.make import make_nowcast, open_backend

_NAMED = 3
"""Failures of a block that are named."""


@dataclass(frozen=True)
class BlockReport:
    """What became of a block's windows."""

    block: int
    written: int = 0
    incomplete: int = 0
    failed: int = 0
    reasons: list[str] = field(default_factory=list)
    """Why windows failed, the first few."""

    @property
    def windows(self) -> int:
        """How many it has."""
        return self.written + self.incomplete + self.failed


class BlockMaker:
    """Makes blocks, one after the other, on one session."""

    def __init__(
        self, bundle: Bundle, session: Session, windows: Windows, options: BackfillOptions
    ) -> None:
        """Put together what was opened; `open_maker` does it.

        Args:
            bundle: the model.
            session: of it, with the graphs of this horizon.
            windows: placed.
            options: of the run.
        """
        self._bundle, self._session, self._windows = bundle, session, windows
        self._options = options
        self._writer = Writer(Store(options.out))

    def make(self, block: int) -> BlockReport:
        """Make a block and mark it as made; the same bytes whoever makes it.

        Raises:
            SinkError: the store cannot be written.
            EnvironmentFault: a file of the archive is not there any more.
        """
        layout = self._writer.store.layout
        rows = layout.rows(block)
        made_of = self._writer.store.made
        scores = None
        if made_of.evaluate:
            scores = BlockScores(self._bundle.manifest.codec, made_of.horizon, made_of.grid)
        taken = self._windows.read(rows, made_of.horizon if made_of.evaluate else 0)
        status = np.zeros(len(rows), np.int8)
        reasons: list[str] = []
        for start in range(rows.start, rows.stop, layout.issues):
            chunk = range(start, min(start + layout.issues, rows.stop))
            made = [self._nowcast(window, taken) for window in chunk]
            for window, one in zip(chunk, made, strict=True):
                if isinstance(one, np.ndarray):
                    status[window - rows.start] = WRITTEN
                elif isinstance(one, str):
                    status[window - rows.start] = INCOMPLETE
                else:
                    status[window - rows.start] = FAILED
                    reasons.append(str(one))
            frames = np.stack(
                [one if isinstance(one, np.ndarray) else self._none() for one in made]
            )  # (n, K, C, H, W)
            self._writer.write(start, frames)
            if scores is not None:
                self._score(scores, chunk, frames, taken)
        if scores is not None:
            scores.save(self._writer.store.path, block)
        self._writer.finish(block, status)
        counts = np.bincount(status, minlength=4).tolist()
        return BlockReport(
            block,
            written=counts[WRITTEN],
            incomplete=counts[INCOMPLETE],
            failed=counts[FAILED],
            reasons=list(dict.fromkeys(reasons))[:_NAMED],
        )

    def _score(self, scores: BlockScores, windows: range, frames: Array, taken: Frames) -> None:
        """Add the windows of a chunk whose nowcast is there and has a frame to be held against."""
        ahead = self._windows.ahead(windows, frames.shape[1])  # (n, K)
        truth = np.full_like(frames, np.nan)
        for n, k in np.argwhere(ahead >= 0):
            truth[n, k] = _observed(taken[int(ahead[n, k])], truth[n, k])
        has = np.isfinite(frames).any(axis=(1, 2, 3, 4)) & np.isfinite(truth).any(axis=(1, 2, 3, 4))
        if has.any():
            newest = self._windows.rows[windows.start : windows.stop, -1][has]
            blank = np.full(frames.shape[2:], np.nan, np.float32)
            seen = np.stack([_observed(taken[int(row)], blank) for row in newest])  # (n, C, H, W)
            scores.update(frames[has], seen, truth[has])

    def _nowcast(self, window: int, taken: Frames) -> Array | FrameError | AccuracyError | str:
        """`(K, C, H, W)`, NaN where the newest frame had no data; or why there is none.

        Each by itself, so that it has the same bits as that of `predict --at`.
        """
        context = self._windows.context(window, taken)
        if not isinstance(context, Context):
            return context
        asked = self._options
        try:
            made = make_nowcast(self._bundle, self._session, context, asked.horizon, asked.domain)
        except AccuracyError as error:
            return error
        return made.masked()

    def _none(self) -> Array:
        """A nowcast that is not there, `(K, C, H, W)`."""
        manifest, made = self._bundle.manifest, self._writer.store.made
        shape = (made.horizon, manifest.frame[0], *made.grid)
        return np.full(shape, np.nan, np.float32)


def _observed(one: Taken | FrameError | str, blank: Array) -> Array:
    """A frame `(C, H, W)`, NaN where nothing was observed; `blank` where it cannot be used."""
    if not isinstance(one, Taken):
        return blank
    return one.frame if one.mask is None else np.where(one.mask, one.frame, np.float32(np.nan))


@contextmanager
def open_maker(options: BackfillOptions) -> Iterator[BlockMaker]:
    """Open everything that making a block takes: once for each worker.

    Args:
        options: with the engine that the store is made on; the store exists.

    Raises:
        UsageError: the engine runs in another precision than the store was begun in.
        StplError: what opening the parts raises.
    """
    bundle, store = open_trusted(options.bundle, options.trust), Store(options.out)
    windows = Windows(bundle, options)
    windows.place(store.located())
    with open_backend(bundle, options.backend, options.horizon) as session:
        precision = precision_of(session, bundle.manifest)
        if precision != store.made.precision:
            raise UsageError(
                f"{options.out} was made in {store.made.precision}",
                expected=f"{precision}, in which {session.engine} runs now",
                fix="the same --allow as it was begun with, or another --out",
            )
        yield BlockMaker(bundle, session, windows, options)
