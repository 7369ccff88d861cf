"""How far an engine may be from PyTorch: a property of model and precision.

fp32 has the model's own rounding as its measure (see `stpl_export.reference`). A half-precision
engine must keep a PSNR (peak 1, model units) over the closed loop at every lead time, and no
single pixel may be off by more than 32 times the root mean square that this PSNR allows.

int8 has no one PSNR: what 8 bits cost depends on the model. Its bundle carries what the quantised
graph gives when it is computed node by node (`Int8Reference`), and an engine is held to that:

    the PSNR of that graph against PyTorch at each lead time, of the sequence that suffers most and
    less 6 dB (twice its error): roundings that kernels do not share grow over the closed loop;
    its very guesses of the first steps, where they have not grown yet: a wrong scale shows there;
    a tenth of a dB of the task's own PSNR against truth, over all sequences and lead times.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stpl_runtime.proof.reference import Reference

MIN_PSNR_DB: dict[str, float] = {"fp16": 60.0, "bf16": 45.0}
"""Precision -> least PSNR between engine and PyTorch, in dB; fp32 has none."""

TASK_BUDGET_DB = 0.1
"""How much PSNR against truth int8 may cost."""

_PEAK_FACTOR = 32.0


def min_psnr_db(precision: str) -> float | None:
    """The least PSNR of a half precision; None for others."""
    return MIN_PSNR_DB.get(precision)


def lead_psnr_db(reference: Reference, precision: str, lead: int) -> float | None:
    """The least PSNR at lead time `lead` (from 0); None for fp32."""
    if reference.int8 is not None:
        return float(reference.int8.min_psnr_db[lead])
    return min_psnr_db(precision)


def lead_tolerance(reference: Reference, precision: str, lead: int) -> float:
    """Greatest error of one pixel at lead time `lead` (from 0)."""
    fp32 = float(reference.tolerance[lead])
    return max(fp32, peak_error(lead_psnr_db(reference, precision, lead)))


def state_tolerance(reference: Reference, precision: str, name: str) -> float:
    """Greatest error of one element of a state tensor after the context."""
    state = reference.states[name]  # of an int8 bundle: with what quantisation itself moves
    amplitude = max(1.0, float(np.abs(state.values).max()))
    return max(state.tolerance, amplitude * peak_error(min_psnr_db(precision)))


def output_tolerance(reference: Reference, precision: str, name: str) -> NDArray[np.float64]:
    """`(K,)`: greatest error of one value that is given beside the frames, at each lead time."""
    return np.maximum(reference.outputs[name].tolerance, peak_error(min_psnr_db(precision)))


def peak_error(psnr_db: float | None) -> float:
    """Greatest error of one value that a PSNR (peak 1) allows; 0 for None."""
    return 0.0 if psnr_db is None else _PEAK_FACTOR * float(10.0 ** (-psnr_db / 20.0))
