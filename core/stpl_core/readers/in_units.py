"""Rain in the unit that a model wants: rates, amounts and reflectivity are turned into one another.

Nothing else is converted: degrees, grey levels and counts are taken as they are or refused.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stpl_core.codec import Array
from stpl_core.rain import MARSHALL_PALMER, dbz_from_rate, rate_from_dbz
from stpl_core.reader import NO_DATA, NO_ECHO, NO_ECHO_DBZ, Quantity, States
from stpl_core.readers.units import rain_rate, reflectivity

_RATE, _AMOUNT, _DBZ = "mm h-1", "mm", "dBZ"
_HOUR_S = 3600.0


def convertible(quantity: Quantity, units: str) -> bool:
    """Whether values of `quantity` are in `units`, or can be turned into them by `in_units`."""
    if quantity.units == units:
        return True
    if quantity.units == _AMOUNT and not quantity.accumulation_s:
        return False  # nothing says over which time it was added up
    return quantity.units in (_RATE, _AMOUNT, _DBZ) and units in (_RATE, _DBZ)


def unit_fix(quantity: Quantity, units: str, option: str = "--units ") -> str:
    """What to type where frames are not in `units` and cannot be turned into it.

    Args:
        quantity: of the frames.
        units: that they should be in.
        option: what to type before a unit.
    """
    stated = {_RATE: "mm/h"}.get(units, units)
    if quantity.units == "unknown":
        return f"{option}{stated} if that is the unit of the numbers, or the unit that it is"
    if quantity.units == _AMOUNT and units in (_RATE, _DBZ):
        return f"{option}mm/5min if each frame is the sum of 5 minutes, or mm/1h, mm/10min, ..."
    return (
        f"a model for {quantity.units}; or, for a NetCDF, GeoTIFF or array that states a wrong "
        f"unit, {option}{stated}"
    )


def converted_quantity(quantity: Quantity, units: str) -> Quantity:
    """What the numbers mean after `in_units`."""
    if quantity.units == units:
        return quantity
    made = rain_rate(quantity.zr) if units == _RATE else reflectivity(quantity.zr)
    return replace(made, channels=quantity.channels)


def in_units(
    frames: Array,
    state: States,
    quantity: Quantity,
    units: str,
    zr: tuple[float, float] = MARSHALL_PALMER,
) -> Array:
    """Turn rain into another unit; an amount becomes the mean rate of the time it fell in.

    Args:
        frames: `(n, C, H, W)` in the units of `quantity`; NaN where there is no data.
        state: `(n, H, W)`.
        quantity: of the frames; `convertible` to `units`.
        units: `mm h-1` or `dBZ`, or those of `quantity`.
        zr: a and b of Z = a R^b where the source states none.

    Returns:
        `(n, C, H, W)`; no echo is 0 mm h-1 or NO_ECHO_DBZ.
    """
    if quantity.units == units:
        return frames
    values, relation = frames.astype(np.float64), quantity.zr or zr
    if quantity.units == _AMOUNT:
        assert quantity.accumulation_s, "convertible"
        values = values * (_HOUR_S / quantity.accumulation_s)
    if quantity.units == _DBZ:
        values = rate_from_dbz(values, relation)
    if units == _DBZ:
        values = np.maximum(dbz_from_rate(values, relation), NO_ECHO_DBZ)
    nothing, unseen = (state == NO_ECHO)[:, None], (state == NO_DATA)[:, None]
    values = np.where(nothing, NO_ECHO_DBZ if units == _DBZ else 0.0, values)
    return np.where(unseen, np.nan, values).astype(np.float32)
