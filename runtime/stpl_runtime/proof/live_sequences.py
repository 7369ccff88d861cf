"""Which sequences can show an engine's fault: those in which something is, and moves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array

LEAST_SPREAD = 1e-3
"""Standard deviation of a sequence's values, in model units, below which it counts as constant."""
LEAST_SHARE = 0.1
"""Of the spread of the sequences that it is compared with."""


def live_sequences(frames: Array, like: Array | None = None) -> NDArray[np.bool_]:
    """For each of `(N, T, C, H, W)` in model units: whether it can show a fault.

    Args:
        frames: the sequences.
        like: sequences as the model was trained on; one with less than a tenth of the spread of
            their liveliest quarter cannot show what int8 costs.
    """
    least = LEAST_SPREAD
    if like is not None and len(like):
        least = max(least, LEAST_SHARE * float(np.quantile(_spread(like), 0.75)))
    moves = np.asarray([bool((np.diff(one, axis=0) != 0).any()) for one in frames])
    return np.asarray((_spread(frames) >= least) & moves, np.bool_)


def _spread(frames: Array) -> NDArray[np.float64]:
    return np.asarray([float(one.std(dtype=np.float64)) for one in frames])
