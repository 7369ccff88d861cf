"""What an int8 engine is judged by beside its closeness to PyTorch (see `tolerance`)."""

from __future__ import annotations

import numpy as np

from stpl_core.codec import Array
from stpl_runtime.proof.reference import Double, Int8Reference

FARTHEST_DB = 200.0
"""Stands for the PSNR of equal frames."""

_FUSES_OTHERWISE_DB = {"openvino": 4.0}
"""Engines that round in other places than ONNX Runtime, by whose kernels the floors of the first
guesses are made: right ones came to 3.4 dB below, a scale that is wrong by a tenth to 6.2 dB."""


def early_allowance_db(engine: str) -> float:
    """How far below the floors the first guesses of an engine may be."""
    return _FUSES_OTHERWISE_DB.get(engine, 0.0)


def psnr_of(mean_square: float) -> float:
    """PSNR in dB, peak 1, from -`FARTHEST_DB` (NaN and Inf too) to `FARTHEST_DB`."""
    if not np.isfinite(mean_square):
        return -FARTHEST_DB
    least = 10.0 ** (-FARTHEST_DB / 10.0)
    return -10.0 * float(np.log10(min(max(mean_square, least), 1.0 / least)))


def psnr_db(one: Array | Double, other: Array | Double) -> float:
    """PSNR of two arrays of one shape."""
    return psnr_of(float(np.mean(np.square(one.astype(np.float64) - other))))


def early_margin_db(guesses: Array, reference: Int8Reference, engine: str) -> float:
    """How far an engine's first guesses `(B, n, C, H, W)` lie above their floors, at the worst."""
    floors = reference.early_psnr_db - early_allowance_db(engine)
    expected = reference.early[: len(guesses)]
    return min(
        psnr_db(guesses[:, t], expected[:, t]) - float(floor) for t, floor in enumerate(floors)
    )
