"""Forecasts that need no model: every score stands beside one of them."""

from __future__ import annotations

import numpy as np

from stpl_deploy.codec import Array


def persistence(context: Array, horizon: int) -> Array:
    """Repeat the last frame.

    Args:
        context: `(N, T, C, H, W)`.
        horizon: K.

    Returns:
        `(N, K, C, H, W)`, a view.
    """
    last = context[:, -1:]  # (N, 1, C, H, W)
    return np.broadcast_to(last, (last.shape[0], horizon, *last.shape[2:]))
