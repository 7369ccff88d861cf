"""What Polygraphy's comparison is given: the bundle's tolerance of each output.

Leads and states have the tolerances of `stpl_runtime.proof.tolerance`; an int8 bundle's first
guesses are held to its quantised graph, and its frames against the truth to the task's budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_export.polygraphy.runners import TRUTH
from stpl_runtime.proof.int8_margin import early_allowance_db, psnr_of
from stpl_runtime.proof.reference import Reference
from stpl_runtime.proof.tolerance import (
    TASK_BUDGET_DB,
    lead_psnr_db,
    lead_tolerance,
    state_tolerance,
)
from stpl_runtime.proof.verify import where_observed


@dataclass(frozen=True)
class Limit:
    """How far one output may be from PyTorch's."""

    tolerance: float
    """Greatest difference of one value."""
    min_psnr_db: float | None = None
    """Peak 1; None for none."""


def limits_of(reference: Reference, precision: str, engine: str = "onnx") -> dict[str, Limit]:
    """Output of an engine -> its limit, whichever graph gives it."""
    limits = {
        f"lead {k + 1}": Limit(
            lead_tolerance(reference, precision, k), lead_psnr_db(reference, precision, k)
        )
        for k in range(reference.float64.shape[1])
    }
    for name in reference.states:
        limits[f"state {name}"] = Limit(state_tolerance(reference, precision, name))
    if reference.int8 is not None:
        floors = reference.int8.early_psnr_db - early_allowance_db(engine)
        limits |= {f"early {n + 1}": Limit(np.inf, float(f)) for n, f in enumerate(floors)}
        limits[TRUTH] = Limit(np.inf, _truth_psnr_db(reference) - TASK_BUDGET_DB)
    return limits


def _truth_psnr_db(reference: Reference) -> float:
    """PSNR between PyTorch and the truth where something was observed."""
    gap = reference.float64 - reference.kept(reference.truth)
    seen = np.broadcast_to(where_observed(reference, len(gap)), gap.shape)
    return psnr_of(float(np.square(gap).sum(where=seen) / max(1, seen.sum())))


def comparisons(limits: Mapping[str, Limit], exact: Mapping[str, NDArray[Any]]) -> list[Any]:
    """Polygraphy's two comparison functions, the greatest difference and PSNR.

    Args:
        limits: output -> limit.
        exact: the outputs of the runner that is compared with, which comes first.
    """
    from polygraphy.comparator import PsnrCompareFunc, SimpleCompareFunc

    known = {name: limits[name] for name in exact}
    tolerances = {name: limit.tolerance for name, limit in known.items()}
    floors = {
        name: -np.inf if limit.min_psnr_db is None else limit.min_psnr_db + peak_db(exact[name])
        for name, limit in known.items()
    }
    # A difference passes where either tolerance holds: the relative one never does.
    return [
        SimpleCompareFunc(atol=tolerances, rtol=0.0, check_error_stat="max"),
        PsnrCompareFunc(floors),
    ]


def peak_db(values: NDArray[Any]) -> float:
    """What Polygraphy's PSNR, with the greatest value as its peak, adds to that of peak 1."""
    peak = float(values.max()) if values.size else 0.0
    return 20.0 * float(np.log10(peak)) if peak > 0 else 0.0
