"""Reflectivity and rain rate: Z = a R^b, Z in mm6 m-3, R in mm h-1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MARSHALL_PALMER = (200.0, 1.6)
"""a and b where a source states none."""


def rate_from_dbz(dbz: Floats, zr: tuple[float, float] = MARSHALL_PALMER) -> Floats:
    """Rain rate in mm h-1 of reflectivity in dBZ, any shape."""
    a, b = zr
    return np.asarray((10.0 ** (dbz / 10.0) / a) ** (1.0 / b), np.float64)


def dbz_from_rate(rate: Floats, zr: tuple[float, float] = MARSHALL_PALMER) -> Floats:
    """Reflectivity in dBZ of rain rate in mm h-1, any shape; minus infinity where it is 0."""
    a, b = zr
    with np.errstate(divide="ignore"):
        return np.asarray(10.0 * (np.log10(a) + b * np.log10(rate)), np.float64)
