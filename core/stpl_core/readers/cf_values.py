"""Stored numbers of a CF variable as values: unsigned, masked, unpacked as netCDF4-python does.

The standard's masks are heeded: `_FillValue` (or the fill value that NetCDF gives every variable
without one), `missing_value`, `valid_min`, `valid_max` and `valid_range`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError

_DEFAULT_FILLS = {
    "i2": -32767,
    "u2": 65535,
    "i4": -2147483647,
    "u4": 4294967295,
    "i8": -9223372036854775806,
    "u8": 18446744073709551614,
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
}
"""The NetCDF users' guide, appendix B; a byte has none."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Unpacking:
    """How one variable's numbers become values."""

    dtype: np.dtype[Any]
    """Of the numbers, unsigned where `_Unsigned` says so."""
    fills: tuple[Any, ...]
    low: float | None
    high: float | None
    packed_limits: bool
    """`low` and `high` are of the stored numbers, not of the values."""
    scale: float
    offset: float

    def values(self, stored: NDArray[Any]) -> tuple[Floats, Mask, Mask]:
        """Values; where they are missing (NaN, fill values); where they leave the valid range."""
        if self.dtype.kind == "u" and stored.dtype.kind == "i":
            stored = stored.astype(stored.dtype.newbyteorder("=")).view(self.dtype)
        missing = np.isnan(stored) if stored.dtype.kind == "f" else np.zeros(stored.shape, bool)
        for fill in self.fills:
            missing |= stored == fill
        values = stored.astype(np.float64)
        if self.scale != 1.0 or self.offset != 0.0:
            values = values * self.scale + self.offset
        limited = stored if self.packed_limits else values
        outside = np.zeros(stored.shape, bool)
        with np.errstate(invalid="ignore"):
            if self.low is not None:
                outside |= limited < self.low
            if self.high is not None:
                outside |= limited > self.high
        return values, missing, outside & ~missing


def unpacking(
    dtype: np.dtype[Any], attributes: dict[str, Any], where: str, *, netcdf: bool
) -> Unpacking:
    """What a variable's attributes say about its numbers.

    Args:
        dtype: of the numbers as stored.
        attributes: as stored.
        where: the file and the variable.
        netcdf: the numbers come from a NetCDF file, which fills what nobody wrote.

    Raises:
        FrameError: an attribute that is no number.
    """
    stored_dtype = dtype = dtype.newbyteorder("=")
    if str(attributes.get("_Unsigned", "")).lower() == "true" and dtype.kind == "i":
        dtype = np.dtype(f"u{dtype.itemsize}")
    scale, offset = (
        factor(attributes, key, where) if key in attributes else default
        for key, default in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    fills = []
    for key in ("_FillValue", "missing_value"):
        if key in attributes:
            fills += [_stored_as(dtype, one) for one in _numbers(attributes, key, where)]
    default = _DEFAULT_FILLS.get(dtype.str[1:])
    signed = dtype == stored_dtype  # of bits that mean another number there is no default
    if netcdf and signed and "_FillValue" not in attributes and default is not None:
        fills.append(dtype.type(default))
    low = high = None
    limits: list[Any] = []
    for key in ("valid_min", "valid_max", "valid_range"):
        if key in attributes:
            found = _numbers(attributes, key, where)
            limits.extend(np.atleast_1d(np.asarray(attributes[key])))
            if key == "valid_range" and len(found) != 2:
                raise FrameError(
                    f"{where} has valid_range {attributes[key]!r}",
                    expected="two numbers",
                    fix="repair the attribute",
                )
            low = found[0] if key != "valid_max" else low
            high = found[-1] if key != "valid_min" else high
    packed_limits = dtype.kind == "f" or not any(
        np.asarray(one).dtype.kind == "f" for one in limits
    )
    if packed_limits:
        low, high = (None if one is None else _stored_as(dtype, one) for one in (low, high))
    kept = tuple(fill for fill in fills if fill is not None)
    return Unpacking(dtype, kept, low, high, packed_limits, scale, offset)


def factor(attributes: dict[str, Any], key: str, where: str) -> float:
    """The number of `scale_factor` or `add_offset`, also where it is a text or an array of one.

    Raises:
        FrameError: it is none that values can be made with.
    """
    found = _numbers(attributes, key, where)
    number = float(found[0])
    if len(found) == 1 and np.isfinite(number) and (number or key != "scale_factor"):
        return number
    raise FrameError(
        f"{where} has {key} {np.asarray(attributes[key]).tolist()!r}",
        expected="one number" + (", and not 0" if key == "scale_factor" else ""),
        fix=f"ncatted -a {key},{where.rpartition(': ')[2]},m,d,NUMBER FILE, with the true number",
    )


def _numbers(attributes: dict[str, Any], key: str, where: str) -> list[Any]:
    try:
        found = [
            float(one) if isinstance(one, (str, bytes)) else one
            for one in np.atleast_1d(np.asarray(attributes[key])).tolist()
        ]
        if not found:
            raise ValueError("empty")
    except (TypeError, ValueError) as error:
        raise FrameError(
            f"{where} has {key} {attributes[key]!r}",
            expected="a number",
            fix=f"ncatted -a {key},{where.rpartition(': ')[2]},d,, FILE if it means nothing",
        ) from error
    return found


def _stored_as(dtype: np.dtype[Any], number: Any) -> Any:
    """A number as the variable would store it; None where it never could (no pixel has it)."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(number)
    if not np.isfinite(number):
        return None
    bits = 8 * dtype.itemsize
    if dtype.kind == "u" and -(2 ** (bits - 1)) <= number < 0:
        number += 2**bits  # written as the signed number of the same bits
    limits = np.iinfo(dtype)
    if not limits.min <= number <= limits.max:
        return None
    return dtype.type(number) if float(number).is_integer() else number
