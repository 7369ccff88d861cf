"""Units as people write them; the factors are worked out by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("pint")

from stpl_core.readers.units import understood

RATE, AMOUNT = "mm h-1", "mm"


@pytest.mark.parametrize(
    ("text", "name", "factor"),
    [
        ("mm/h", RATE, 1),
        ("mm.h-1", RATE, 1),
        ("mm hour-1", RATE, 1),
        ("mm per hour", RATE, 1),
        ("mm·h⁻¹", RATE, 1),
        ("MM/HR", RATE, 1),
        ("millimeter/hour", RATE, 1),
        ("mm/5min", RATE, 12),
        ("mm (5min)-1", RATE, 12),
        ("mm/(15 min)", RATE, 4),
        ("mm/24h", RATE, 1 / 24),
        ("mm d-1", RATE, 1 / 24),
        ("0.1 mm/h", RATE, 0.1),
        ("1e-3 mm/s", RATE, 3.6),
        ("in/hr", RATE, 25.4),
        ("kg m-2 s-1", RATE, 3600),
        ("kg m**-2 s**-1", RATE, 3600),
        ("kg/m2/h", RATE, 1),
        ("kg m^-2 h^-1", RATE, 1),
        ("kg m-2 (30 min)-1", RATE, 2),
        ("kg.m-2", AMOUNT, 1),
        ("kg/m^2", AMOUNT, 1),
        ("inches", AMOUNT, 25.4),
        ("dBZe", "dBZ", 1),
        ("dB", "dB", 1),
        ("decibel", "decibel", 1),
        ("m", "m", 1),
        ("m s-1", "m s-1", 1),
        ("W m-2", "W m-2", 1),
        ("mm of something", "mm of something", 1),
    ],
)
def test_without_a_word_on_what_it_is(text: str, name: str, factor: float) -> None:
    found = understood(text)
    assert found.name == name
    assert found.factor == pytest.approx(factor, rel=1e-12)


def test_what_the_field_is_decides_where_the_unit_does_not() -> None:
    assert understood("m s-1", "lwe_precipitation_rate").factor == pytest.approx(3.6e6)
    assert understood("m", "total precipitation tp").factor == pytest.approx(1000)
    assert understood("kg m-2 s-1", "water_evapotranspiration_flux").name == "kg m-2 s-1"
    assert understood("kg m-2", "total column water vapour").name == "kg m-2"
    assert understood(None).name == "unknown"
