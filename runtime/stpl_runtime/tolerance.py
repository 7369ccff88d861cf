"""How far an engine may be from PyTorch: a property of model and precision.

fp32 has the model's own rounding as its measure (see `stpl_export.reference`). A half-precision
engine must keep a PSNR (peak 1, model units) over the closed loop at every lead time, and no
single pixel may be off by more than 32 times the root mean square that this PSNR allows.
"""

from __future__ import annotations

import numpy as np

from stpl_runtime.reference import Reference

MIN_PSNR_DB: dict[str, float] = {"fp16": 60.0, "bf16": 45.0}
"""Precision -> least PSNR between engine and PyTorch, in dB; fp32 has none."""

_PEAK_FACTOR = 32.0


def min_psnr_db(precision: str) -> float | None:
    """The least PSNR of a precision; None for fp32."""
    return MIN_PSNR_DB.get(precision)


def lead_tolerance(reference: Reference, precision: str, lead: int) -> float:
    """Greatest error of one pixel at lead time `lead` (from 0)."""
    fp32 = float(reference.tolerance[lead])
    return max(fp32, _half_tolerance(precision))


def state_tolerance(reference: Reference, precision: str, name: str) -> float:
    """Greatest error of one element of a state tensor after the context."""
    state = reference.states[name]
    amplitude = max(1.0, float(np.abs(state.values).max()))
    return max(state.tolerance, amplitude * _half_tolerance(precision))


def _half_tolerance(precision: str) -> float:
    floor = min_psnr_db(precision)
    return 0.0 if floor is None else _PEAK_FACTOR * float(10.0 ** (-floor / 20.0))
