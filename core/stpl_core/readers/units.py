"""Units under one name each, and the quantities that go with them."""

from __future__ import annotations

from stpl_core.reader import NO_ECHO_DBZ, Quantity

_SPELLINGS = {
    "mm h-1": (
        "mm/h",
        "mm/hr",
        "mm/hour",
        "mm h^-1",
        "mm h**-1",
        "mm hr-1",
        "mm/h-1",
        "kg m-2 h-1",
    ),
    "mm": ("millimeter", "millimeters", "millimetre", "millimetres", "kg m-2", "kg m**-2"),
    "dBZ": ("dbz",),
    "K": ("kelvin", "degk"),
    "degC": ("celsius", "degree_celsius", "degrees_celsius", "°c"),
    "m s-1": ("m/s", "m s**-1", "m s^-1"),
    "1": ("", "none", "dimensionless", "fraction", "-"),
    "count": ("counts",),
}
_CANONICAL = {
    spelling: unit for unit, others in _SPELLINGS.items() for spelling in (unit.lower(), *others)
}


def cf_units(text: str | None) -> str:
    """One spelling for each unit, CF notation; `unknown` where a file says none (None)."""
    if text is None:
        return "unknown"
    return _CANONICAL.get(text.strip().lower(), text.strip())


def rain_rate(zr: tuple[float, float] | None = None) -> Quantity:
    """Rain rate in mm h-1."""
    return Quantity("rain rate", "mm h-1", "rainfall_rate", no_echo=0.0, zr=zr)


def rain_amount(accumulation_s: float | None, zr: tuple[float, float] | None = None) -> Quantity:
    """Rain amount in mm over `accumulation_s` seconds."""
    name = "lwe_thickness_of_precipitation_amount"
    return Quantity("rain amount", "mm", name, 0.0, zr=zr, accumulation_s=accumulation_s)


def reflectivity(zr: tuple[float, float] | None = None) -> Quantity:
    """Radar reflectivity in dBZ."""
    name = "equivalent_reflectivity_factor"
    return Quantity("radar reflectivity", "dBZ", name, no_echo=NO_ECHO_DBZ, zr=zr)


def grey_level(channels: tuple[str, ...] = ("",)) -> Quantity:
    """A fraction of full scale."""
    return Quantity("grey level", "1", channels=channels)
