"""Decodes one GRIB file in a process of its own: `python -I grib_process.py FILE MOST LIBRARIES`.

`-I` and the path: nothing is imported from the current folder, from this file's own, or from where
the environment points, which may hold a json.py beside the data. MOST is how many values a
message may have, LIBRARIES are folders that are searched last.

The eccodes wheel carries its own PROJ. Imported before pyproj it breaks pyproj's database and the
interpreter crashes at its end (seen: exit 139 or 134); which comes first is not ours to say, so
nothing but eccodes and numpy is imported here.

For each message one line of JSON goes to stdout, then its values as float32; a line {"end": count}
or {"error": text} closes the stream, and what happens to the process after that does not matter.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any, BinaryIO

import numpy as np

CPU_SECONDS = 30
"""Of one message's values."""
_HEADER_CPU_SECONDS = 4
_UNIT_S = {
    **{0: 60, 1: 3600, 2: 86_400, 3: 30 * 86_400, 4: 366 * 86_400, 5: 3660 * 86_400},
    **{6: 10_980 * 86_400, 7: 36_600 * 86_400, 10: 10_800, 11: 21_600, 12: 43_200},
    **{13: 900, 14: 1800},  # of edition 1; in edition 2 13 is a second
}
"""Code of a unit of time (code table 4.4 of edition 2, table 4 of edition 1) -> seconds."""
_MOST_LEAD_S = 100 * 366 * 86_400
_LEADS = {
    "indicatorOfUnitForForecastTime": ("forecastTime",),
    "indicatorOfUnitForTimeRange": ("lengthOfTimeRange",),
    "unitOfTimeRange": ("P1", "P2"),
}
"""Key of a unit -> keys of what is counted in it."""
_MISSING = -1e30
KEYS = (
    "edition",
    "discipline",
    "parameterCategory",
    "parameterNumber",
    "shortName",
    "name",
    "units",
    "centre",
    "gridType",
    "Ni",
    "Nj",
    "latitudeOfFirstGridPointInDegrees",
    "longitudeOfFirstGridPointInDegrees",
    "latitudeOfLastGridPointInDegrees",
    "longitudeOfLastGridPointInDegrees",
    "iDirectionIncrementInDegrees",
    "jDirectionIncrementInDegrees",
    "jScansPositively",
    "iScansNegatively",
    "jPointsAreConsecutive",
    "alternativeRowScanning",
    "validityDate",
    "validityTime",
    "second",
    "level",
    "typeOfLevel",
    "number",
    "stepType",
    "stepRange",
    "radius",
    "earthMajorAxisInMetres",
    "earthMinorAxisInMetres",
    "DxInMetres",
    "DyInMetres",
    "DiInMetres",
    "DjInMetres",
    "LaDInDegrees",
    "LoVInDegrees",
    "Latin1InDegrees",
    "Latin2InDegrees",
    "southPoleOnProjectionPlane",
    "orientationOfTheGridInDegrees",
    "standardParallelInDegrees",
    "centralLongitudeInDegrees",
    "latitudeOfSouthernPoleInDegrees",
    "longitudeOfSouthernPoleInDegrees",
    "angleOfRotationInDegrees",
)
"""What the parent learns of a message; a key that it has not is None."""


def send_messages(file: BinaryIO, out: BinaryIO, most_values: int) -> int:
    """Write every message of `file` to `out`; return how many there were.

    Raises:
        eccodes.CodesInternalError: a message that cannot be decoded, or is not whole.
    """
    import eccodes

    count = 0
    _allow_seconds(_HEADER_CPU_SECONDS)
    while (message := eccodes.codes_grib_new_from_file(file)) is not None:
        try:
            _check_size(eccodes, message, most_values)
            _check_lead(eccodes, message)
            header = {key: _get(eccodes, message, key) for key in KEYS}
            header["steps_s"] = _steps_s(eccodes, message)
            _allow_seconds(CPU_SECONDS)
            # A number that no field has: 9999, which is usual, may well be a value.
            eccodes.codes_set(message, "missingValue", _MISSING)
            found = eccodes.codes_get_values(message)
            values = np.where(found == _MISSING, np.nan, found).astype("<f4")
        finally:
            eccodes.codes_release(message)
        out.write(json.dumps({**header, "values": len(values)}).encode() + b"\n")
        out.write(values.tobytes())
        count += 1
        _allow_seconds(_HEADER_CPU_SECONDS)
    return count


def _allow_seconds(seconds: int) -> None:
    """Let this process compute so much longer: it ends itself, even where nobody waits."""
    try:
        import resource
    except ImportError:  # Windows; the parent's deadline holds there
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(used.ru_utime + used.ru_stime) + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or limit <= hard:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _check_size(eccodes: Any, message: int, most: int) -> None:
    """Refuse a message that claims more values than any field has, before room is made for them."""
    for key in ("numberOfValues", "numberOfDataPoints", "Ni", "Nj"):
        found = _get(eccodes, message, key)
        if isinstance(found, int) and found > most:
            raise ValueError(f"{key} = {found}, more than {most}")


def _check_lead(eccodes: Any, message: int) -> None:
    """Refuse a lead time beyond 100 years: eccodes counts on to its date day by day."""
    for unit, counts in _LEADS.items():
        code = _get(eccodes, message, unit)
        for key in counts if code is not None else ():
            count = _get(eccodes, message, key) or 0
            if code == 255 or abs(count) * _UNIT_S.get(code, 1) > _MOST_LEAD_S:
                raise ValueError(f"{key} = {count} in the unit of code {code} is no lead time")


def _steps_s(eccodes: Any, message: int) -> list[float] | None:
    """Where the period of an amount begins and ends, in seconds after the start of the run."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    tried = (_steps_in(eccodes, message, unit, seconds) for unit, seconds in units.items())
    return next((found for found in tried if found is not None), None)


def _steps_in(eccodes: Any, message: int, unit: str, seconds: float) -> list[float] | None:
    """None where the steps are not whole in this unit, or too large a number of it."""
    try:
        eccodes.codes_set(message, "stepUnits", unit)
        texts = [str(eccodes.codes_get(message, key)) for key in ("startStep", "endStep")]
        return [seconds * float(text.rstrip(unit)) for text in texts]
    except (eccodes.CodesInternalError, ValueError):
        return None


def _get(eccodes: Any, message: int, key: str) -> Any:
    try:
        return eccodes.codes_get(message, key)
    except eccodes.KeyValueNotFoundError:
        return None


def main() -> None:
    """Decode the file named on the command line."""
    out = sys.stdout.buffer
    sys.path += sys.argv[3:]
    try:
        with open(sys.argv[1], "rb") as file:
            end: dict[str, Any] = {"end": send_messages(file, out, int(sys.argv[2]))}
    except Exception as error:  # the parent reports it: it knows the user
        end = {"error": f"{type(error).__name__}: {error}"}
    out.write(json.dumps(end).encode() + b"\n")
    out.flush()


if __name__ == "__main__":
    main()
