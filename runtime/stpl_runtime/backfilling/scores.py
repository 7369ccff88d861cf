"""`backfill --evaluate`: sums of scores beside each block, added up when they are asked for.

A block's sums are written before it counts as made, so that whoever goes on finds them, and no
forecast is scored twice. They are added in the order of the blocks: the same scores, to the last
bit, whoever made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stpl_core.baselines import persistence
from stpl_core.codec import Array, FrameCodec
from stpl_core.files import atomic_file
from stpl_core.scores.accumulator import Accumulator, Scores
from stpl_runtime.backfilling.store import SCORES
from stpl_runtime.evaluation.evaluate import DEFAULT_THRESHOLDS, MODEL, SCALES
from stpl_runtime.sink import sink_error

WAYS = (MODEL, "persistence")


class BlockScores:
    """Scores of some windows: of the model, and of the newest frame repeated."""

    def __init__(self, codec: FrameCodec, horizon: int, grid: tuple[int, int]) -> None:
        """Start from nothing.

        Args:
            codec: the bundle's.
            horizon: K.
            grid: (H, W).
        """
        limits = DEFAULT_THRESHOLDS.get(codec.units, ())
        sides = tuple(side for side in SCALES if side <= min(grid))
        self._sums = {way: Accumulator(horizon, codec, limits, sides) for way in WAYS}

    def update(self, forecast: Array, newest: Array, truth: Array) -> None:
        """Add windows; NaN where nothing is known.

        Args:
            forecast: `(n, K, C, H, W)`, physical units.
            newest: `(n, C, H, W)`, the frame that it was made from.
            truth: `(n, K, C, H, W)`.
        """
        ours, baseline = (self._sums[way] for way in WAYS)
        ours.update(forecast, truth)
        # Where the model has no forecast, none is scored: the same pixels for both.
        known = np.isfinite(forecast)
        repeated = persistence(newest[:, None], truth.shape[1])  # (n, K, C, H, W)
        baseline.update(np.where(known, repeated, np.float32(np.nan)), truth)

    def save(self, store: Path, block: int) -> None:
        """Write the sums of a block.

        Raises:
            SinkError: there is no room, or no right to write.
        """
        sums = {f"{way}.{name}": v for way in WAYS for name, v in self._sums[way].sums.items()}
        try:
            with atomic_file(store / SCORES / f"{block}.npz") as file:
                np.savez(file, **sums)  # type: ignore[arg-type]  # names are ours
        except OSError as error:
            raise sink_error(store, 0, error) from error

    def add_block(self, store: Path, block: int) -> None:
        """Add what `save` wrote."""
        with np.load(store / SCORES / f"{block}.npz") as found:
            for way in WAYS:
                names = [name for name in found.files if name.startswith(f"{way}.")]
                self._sums[way].add_sums({n.removeprefix(f"{way}."): found[n] for n in names})

    def result(self) -> dict[str, Scores] | None:
        """By the name of the forecaster; None where nothing was scored."""
        if not self._sums[MODEL].sums:
            return None
        return {way: sums.result() for way, sums in self._sums.items()}


def scores_of(
    store: Path, blocks: Sequence[int], codec: FrameCodec, horizon: int, grid: tuple[int, int]
) -> dict[str, Scores] | None:
    """The scores of all blocks that are made.

    Args:
        store: made with `--evaluate`.
        blocks: which are made.
        codec: the bundle's.
        horizon: K.
        grid: (H, W).
    """
    whole = BlockScores(codec, horizon, grid)
    for block in sorted(blocks):
        whole.add_block(store, block)
    return whole.result()
