"""Rain in another unit: rates, amounts and reflectivity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stpl_core.rain import dbz_from_rate
from stpl_core.reader import NO_DATA, NO_ECHO, NO_ECHO_DBZ, VALUE, Quantity
from stpl_core.readers.in_units import converted_quantity, convertible, in_units
from stpl_core.readers.units import rain_amount, rain_rate, reflectivity

ZR = (223.0, 1.53)


def one(values: Any) -> np.ndarray:
    """`(1, 1, 1, W)`."""
    return np.asarray(values, np.float32)[None, None, None]


STATE = np.array([[[VALUE, VALUE, NO_ECHO, NO_DATA]]], np.uint8)


def test_an_amount_of_five_minutes_is_twelve_times_that_in_an_hour() -> None:
    amount = rain_amount(300.0)
    found = in_units(one([0.1, 2.0, 0.0, np.nan]), STATE, amount, "mm h-1")
    np.testing.assert_allclose(found[0, 0, 0, :3], [1.2, 24.0, 0.0], rtol=1e-6)
    assert np.isnan(found[0, 0, 0, 3])
    assert converted_quantity(amount, "mm h-1").standard_name == "rainfall_rate"


def test_reflectivity_by_the_sources_own_relation() -> None:
    """23 dBZ are 1 mm/h by Z = 200 R^1.6; what the source states comes before what is asked."""
    values = one([10 * np.log10(200.0), 40.0, NO_ECHO_DBZ, np.nan])
    found = in_units(values, STATE, reflectivity((200.0, 1.6)), "mm h-1", ZR)
    np.testing.assert_allclose(found[0, 0, 0, 0], 1.0, rtol=1e-5)
    assert found[0, 0, 0, 2] == 0.0  # exactly: no echo is no rain
    stated = in_units(values, STATE, reflectivity(), "mm h-1", ZR)
    np.testing.assert_allclose(dbz_from_rate(stated[0, 0, 0, :2], ZR), values[0, 0, 0, :2], 1e-5)


def test_there_and_back() -> None:
    rates = one([0.5, 80.0, 0.0, np.nan])
    dbz = in_units(rates, STATE, rain_rate(ZR), "dBZ")
    assert dbz[0, 0, 0, 2] == NO_ECHO_DBZ
    back = in_units(dbz, STATE, reflectivity(ZR), "mm h-1")
    np.testing.assert_allclose(back, rates, rtol=1e-5)
    assert in_units(rates, STATE, rain_rate(), "mm h-1") is rates


@pytest.mark.parametrize(
    ("quantity", "units", "can"),
    [
        (rain_rate(), "dBZ", True),
        (reflectivity(), "mm h-1", True),
        (rain_amount(300.0), "dBZ", True),
        (rain_amount(None), "mm h-1", False),  # over which time?
        (rain_amount(None), "mm", True),
        (rain_rate(), "mm", False),
        (Quantity("2 m temperature", "K"), "degC", False),
        (Quantity("2 m temperature", "K"), "K", True),
    ],
)
def test_what_can_be_turned_into_what(quantity: Quantity, units: str, can: bool) -> None:
    assert convertible(quantity, units) == can
