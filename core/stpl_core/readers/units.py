"""Units under one name each, and the quantities that go with them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stpl_core.reader import NO_ECHO_DBZ, Quantity
from stpl_core.readers.libraries import reads_with

_SPELLINGS = {
    "mm h-1": (
        "mm/h",
        "mm/hr",
        "mm/hour",
        "mm h^-1",
        "mm h**-1",
        "mm hr-1",
        "mm hour-1",
        "mm.h-1",
        "mm/h-1",
        "mmh-1",
        "mmhr-1",
        "mm h-1",
        "kg m-2 h-1",
    ),
    "mm": ("millimeter", "millimeters", "millimetre", "millimetres", "kg m-2", "kg m**-2"),
    "dBZ": ("dbz", "dbze", "dbzh", "dbzv", "db(z)"),
    "K": ("kelvin", "degk"),
    "degC": ("celsius", "degree_celsius", "degrees_celsius", "°c"),
    "m s-1": ("m/s", "m s**-1", "m s^-1"),
    "1": ("", "none", "dimensionless", "fraction", "-"),
    "count": ("counts",),
}
_CANONICAL = {
    spelling: unit for unit, others in _SPELLINGS.items() for spelling in (unit.lower(), *others)
}
_RAIN = re.compile(r"rain|precip|snowfall|lwe|hail|graupel|drizzle")
_NOT_RAIN = re.compile(
    r"evapo|transpir|vapou?r|cloud|column|content|soil|moist|runoff|dust|aerosol|carbon|\bvil\b|"
    r"integrated|liquid_water_path|snow_depth|depth_of_snow|wind|wave|height|altitude"
)
_MARKS = str.maketrans({"\u2212": "-", "{": "", "}": "", "$": ""})
"""A true minus, and what LaTeX puts around an exponent."""
_OF_WATER = re.compile(
    r"(?<=m) (of )?(liquid )?(water|w\.? ?e(q|\.)?|lwe)( equivalent)?\.?$", re.IGNORECASE
)
_TIMES = r"seconds?|secs?|s|minutes?|mins?|min|hours?|hrs?|hr|h|days?|d"
_HOUR_S = 3600.0
_LONGEST = 100
"""Of a text that is a unit."""
_SMALL = r"[-+]?\d{1,2}(?:\.\d{1,3})?"
_EXPONENT = re.compile(rf"\*\*(?!\s*(?:\({_SMALL}\)|{_SMALL})(?![\d.]|\s*\*\*))")
"""One that no unit has: 9**9**9**9 takes for ever to compute."""
_MOST_POWERS_OF_GROUPS = 2


@dataclass(frozen=True)
class Unit:
    """What a unit's text means."""

    name: str
    """In CF notation, or as written where nobody knows it."""
    factor: float = 1.0
    """What stored values are multiplied with to be in it."""


def cf_units(text: str | None) -> str:
    """One spelling for each unit, CF notation; `unknown` where a file says none (None)."""
    if text is None:
        return "unknown"
    plain = unicodedata.normalize("NFKC", text).translate(_MARKS).strip()
    return _CANONICAL.get(plain.lower(), _CANONICAL.get(text.strip().lower(), text.strip()))


def understood(text: str | None, about: str = "") -> Unit:
    """The unit of a text, rain in `mm h-1` or `mm` whatever it is written in.

    A flux of mass and a length in a time are rain rates, a mass on an area and a length are rain
    amounts; but only where the text is one of rain (mm, inches) or `about` speaks of it.

    Args:
        text: as a file or a user writes it; None: nothing is said.
        about: what the values are: CF standard name, long name and name of the variable.
    """
    name = cf_units(text)
    about = about.lower()
    rain = _RAIN.search(about) is not None
    if text is not None and is_not_rain(about):
        return Unit(text.strip() if "kg" in text else name)
    if text is None or (name in _SPELLINGS and name not in ("m s-1", "1")):
        return Unit(name)
    if name == "1" or not (rain or re.search(r"mm|milli|inch|\bin\b|kg", name, re.IGNORECASE)):
        return Unit(name)
    return _rain_unit(name, rain) or Unit(name)


def is_misspelt(text: str) -> bool:
    """Whether a text begins as a unit of rain does, and is none."""
    begins = re.match(r"[\d./\s]*(mm|kg|in(ch(es)?)?)(?![a-z])", text.strip().lower())
    unit = understood(text, "rain")
    return begins is not None and unit.name not in _SPELLINGS and _parsed(unit.name) is None


def is_not_rain(about: str) -> bool:
    """Whether words speak of another amount or flux of water, or of another length."""
    return not _RAIN.search(about.lower()) and _NOT_RAIN.search(about.lower()) is not None


def _rain_unit(name: str, rain: bool) -> Unit | None:
    """By the units library; None where the text is no unit, or none of rain."""
    made = _parsed(name)
    if made is None:
        return None
    powers = {str(key): float(power) for key, power in made.dimensionality.items()}
    if powers in ({"[mass]": 1, "[length]": -2, "[time]": -1}, {"[mass]": 1, "[length]": -2}):
        made = made / _registry().Quantity(1.0, "kg/m**2") * _registry().Quantity(1.0, "mm")
        powers = {"[length]": 1.0, **({"[time]": -1.0} if "[time]" in powers else {})}
    if powers == {"[length]": 1, "[time]": -1}:
        return Unit("mm h-1", _rounded(float(made.to("mm/hour").magnitude)))
    if powers == {"[length]": 1}:
        return Unit("mm", _rounded(float(made.to("mm").magnitude)))
    return None


def _rounded(factor: float) -> float:
    """Without the last bits of binary fractions: 3600, not 3600.0000000000005."""
    return float(f"{factor:.14g}")


@lru_cache(maxsize=1)
def _registry() -> Any:
    with reads_with("frames"):
        import pint
    return pint.UnitRegistry(cache_folder=None)


@lru_cache(maxsize=64)
def _parsed(name: str) -> Any:
    """A `pint.Quantity`, or None."""
    if len(name) > _LONGEST:
        return None
    text = _in_python(name)
    if "'" in text or '"' in text:  # minutes to some, seconds of an angle to others
        return None
    if _EXPONENT.search(text) or text.count(")**") > _MOST_POWERS_OF_GROUPS:
        return None
    registry = _registry()
    try:
        return registry.Quantity(text).to_base_units()
    except Exception:  # what its parser meets in a text that is no unit has no common base
        return None


def _in_python(name: str) -> str:
    """CF and udunits notation as an expression: `kg m-2 (5min)-1` is `kg*m**-2*(5*min)**-1`."""
    text = _OF_WATER.sub("", name.replace("·", "*"))
    text = unicodedata.normalize("NFKC", text).translate(_MARKS).replace("^", "**")
    text = re.sub(r"\s+per\s+", "/", text, flags=re.IGNORECASE)
    text = re.sub(rf"(?<![\w.*+-])(\d+(?:\.\d+)?)\s*({_TIMES})\b", r"(\1*\2)", text)
    text = text.replace("((", "(").replace("))", ")") if "((" in text else text
    text = re.sub(r"(?<=[A-Za-z)])(?<!\d[eE])\s*(-?\d+)(?![\d.]*[A-Za-z])", r"**\1", text)
    text = re.sub(r"(?<=[A-Za-z\d)])\.(?=[A-Za-z])", "*", text)
    text = re.sub(r"(?<=[\w)])(?:\s+(?=[A-Za-z(])|(?=\())", "*", text.strip(" []"))
    return re.sub(r"\binches\b|\bin\b", "inch", text)


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


def rain_or_echo(
    units: str, zr: tuple[float, float] | None = None, accumulation_s: float | None = None
) -> Quantity | None:
    """The quantity of a unit that is always rain or reflectivity; None for other units."""
    if units == "mm":
        return rain_amount(accumulation_s, zr)
    return {"mm h-1": rain_rate(zr), "dBZ": reflectivity(zr)}.get(units)


def grey_level(channels: tuple[str, ...] = ("",)) -> Quantity:
    """A fraction of full scale."""
    return Quantity("grey level", "1", channels=channels)
