"""The text of `compare.py`: a comparison for Polygraphy that knows each lead time's tolerance.

Polygraphy has one tolerance for an output. A forecast is one output of K frames, and the error of
its last is hundreds of times that of its first: one tolerance for all would hide faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stpl_export.polygraphy.library import PYTORCH
from stpl_export.polygraphy.limits import Limit


def compare_script(limits: Mapping[str, Sequence[Limit]]) -> str:
    """Python text for `polygraphy run --compare-func-script`.

    Args:
        limits: output -> one limit for each lead time, or a single one.
    """
    lines = {
        name: [(limit.tolerance, limit.min_psnr_db) for limit in each]
        for name, each in limits.items()
    }
    table = "".join(f"    {name!r}: {pairs!r},\n" for name, pairs in lines.items())
    return _SCRIPT.replace("    LIMITS_OF_EACH\n", table).replace("RUNNER", repr(PYTORCH))


_SCRIPT = '''"""Compares with PyTorch; each lead time of a forecast has a tolerance of its own."""

from collections import OrderedDict

import numpy as np
from polygraphy.comparator import IterationResult, PsnrCompareFunc, SimpleCompareFunc

# Output: (greatest difference, least PSNR of peak 1 in dB or None), one for each lead time.
LIMITS = {
    LIMITS_OF_EACH
}


def by_lead(result):
    """The outputs with a forecast's lead times apart, `(B, C, H, W)` each."""
    parts = OrderedDict()
    for name, limits in LIMITS.items():
        values = result[name]
        if len(limits) == 1:
            parts[name] = values
        else:
            leads = [np.ascontiguousarray(values[:, k]) for k in range(values.shape[1])]
            parts |= {f"{name} lead {k + 1}": lead for k, lead in enumerate(leads)}
    return IterationResult(parts, runner_name=result.runner_name)


def limits_by_lead():
    """Output or lead time: its limit."""
    found = {}
    for name, limits in LIMITS.items():
        many = len(limits) > 1
        found |= {f"{name} lead {k + 1}" if many else name: one for k, one in enumerate(limits)}
    return found


def compare_outputs(one, other):
    """Called by Polygraphy with the outputs of two runners: output -> whether it passes."""
    exact, found = (one, other) if one.runner_name == RUNNER else (other, one)
    exact, found, limits = by_lead(exact), by_lead(found), limits_by_lead()
    peaks = {name: max(float(values.max()), 0.0) or 1.0 for name, values in exact.items()}
    floors = {
        name: -np.inf if least is None else least + 20 * np.log10(peaks[name])
        for name, (_, least) in limits.items()
    }
    tolerances = {name: tolerance for name, (tolerance, _) in limits.items()}
    close = SimpleCompareFunc(atol=tolerances, rtol=0.0, check_error_stat="max")(exact, found)
    clear = PsnrCompareFunc(floors)(exact, found)
    return OrderedDict((name, bool(close[name]) and bool(clear[name])) for name in limits)
'''
