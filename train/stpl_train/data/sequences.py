"""What the training loop asks of data: sequences by index, and in which order they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from stpl_core.codec import Array
from stpl_core.frames import FrameShape
from stpl_core.grid import Grid
from stpl_core.reader import Mask
from stpl_core.reading.understood import Understood
from stpl_core.windows.placing import Indices
from stpl_train.randomness import permutation


class Sequences(Protocol):
    """A set of sequences, each a pure function of its index."""

    @property
    def count(self) -> int | None:
        """How many there are; None where they never repeat."""
        ...

    def batch(self, indices: Indices) -> Array:
        """Sequences `(B, T + K, C, H, W)` float32 in model units.

        A sequence depends on its own index only, not on the others in the batch.
        """
        ...


@runtime_checkable
class MaskedSequences(Sequences, Protocol):
    """Sequences some of whose pixels may not have been observed."""

    def masked(self, indices: Indices) -> tuple[Array, Mask]:
        """As `batch`, and which pixels were observed, `(B, T + K, H, W)`."""
        ...


def masked_batch(sequences: Sequences, indices: Indices) -> tuple[Array, Mask | None]:
    """`(B, T + K, C, H, W)` in model units, and which pixels were observed; None: all were."""
    if not isinstance(sequences, MaskedSequences):
        return sequences.batch(indices), None
    frames, observed = sequences.masked(indices)
    return frames, None if observed.all() else observed


@dataclass(frozen=True)
class DataSplit:
    """Opened data: what is trained on, what is held out, and the frame's shape."""

    training: Sequences
    validation: Array
    """`(N, T + K, C, H, W)` float32 in model units; never trained on, never a test set."""
    frame: FrameShape
    cadence_s: float | None = None
    """Seconds between frames, where the data has them."""
    validation_observed: Mask | None = None
    """`(N, T + K, H, W)`, False where a pixel of `validation` was not observed; None: all were."""
    grids: tuple[Grid, ...] = ()
    """Where the pixels lie, as the model sees them, where the data has them."""
    understood: Understood | None = None
    """What was read; None where it is generated."""
    remarks: tuple[str, ...] = ()
    """What is probably not intended, a line each."""


def training_indices(sequences: Sequences, seed: int, iteration: int, batch: int) -> Indices:
    """Which sequences iteration 0, 1, ... sees: every one once per epoch, in a new random order.

    Args:
        sequences: the training set.
        seed: of the run.
        iteration: from 0.
        batch: sequences per iteration over all devices; a batch may reach into the next epoch.

    Returns:
        `(batch,)`.
    """
    places = np.arange(iteration * batch, (iteration + 1) * batch, dtype=np.int64)
    if sequences.count is None:
        return places
    epochs, within = np.divmod(places, sequences.count)
    orders = {
        int(epoch): permutation(seed, int(epoch), sequences.count) for epoch in np.unique(epochs)
    }
    return np.array(
        [orders[int(e)][w] for e, w in zip(epochs, within, strict=True)], dtype=np.int64
    )
