"""KNMI's HDF5 radar products (rain amounts and reflectivity), by h5py.

Values by the formula `GEO=a*PV+b`; the earth's radius and the pixels are in km (kept here in
metres). Missing and out of the image are both no data; but a 0 is no echo where only "missing" is
0, as in the reflectivity composites, whose unseen pixels are out of the image (pysteps agrees).
A forecast holds one image for each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError, UsageError
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions, Times
from stpl_core.readers.hdf5 import SUFFIXES, has, plain
from stpl_core.readers.hdf5_checks import open_hdf5, whole
from stpl_core.readers.placing import Flips, placed, turned
from stpl_core.readers.projections import crs_of
from stpl_core.readers.units import rain_amount, reflectivity

__all__ = ["ABOUT", "SUFFIXES", "read", "recognises"]

ABOUT = "KNMI HDF5 radar: rain amount, reflectivity, forecasts"
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?"
_FORMULA = re.compile(
    rf"GEO=(?:(?P<gain>[-+]?(?:{_NUMBER}))\*PV|PV\*(?P<gain_>[-+]?(?:{_NUMBER}))|PV)"
    rf"(?:(?P<sign>[-+])(?P<offset>[-+]?(?:{_NUMBER})))?;?",
    re.IGNORECASE,
)
_KINDS = ("[MM]", "[DBZ]")
"""Ends of the parameters that are read; beside them stand factors of adjustment and quality."""
_KM = 1000.0
_ZR = (200.0, 1.6)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def recognises(path: Path) -> bool:
    """Whether it has KNMI's groups."""
    return path.is_file() and has(path, "image1/image_data", "geographic", "overview")


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frame of a product, or the frames of a forecast."""
    with open_hdf5(path) as file:
        every = _images(file)
        names = _chosen(every, options, path)
        start, end = (
            _time(plain(file["overview"].attrs[f"product_datetime_{edge}"]), path)
            for edge in ("start", "end")
        )
        moments = _times(file, every, end, path)
        span_s = _span_s(moments, float((end - start) / np.timedelta64(1, "s")))
        read_ones = [_image(file[name], span_s, path) for name in names]
        frames, states, quantities = zip(*read_ones, strict=True)
        grid, flips = _grid(file["geographic"], frames[0].shape, path)
    times = moments[[every.index(name) for name in names]]
    if len(set(times)) < len(times):
        raise _several(path, names, "at one time")
    if len({one.shape for one in frames}) > 1:
        raise _several(path, names, "of several sizes")
    order = np.argsort(times, kind="stable")
    piece = Piece(
        frames=np.stack(frames)[order, None],  # (n, 1, H, W)
        state=np.stack(states)[order],
        grid=grid,
        quantity=quantities[0],
        source=str(path),
        time=times[order],
        notes={"institution": "KNMI"},
    )
    yield turned(piece, flips)


def _images(file: Any) -> list[str]:
    """Names of the images of rain or reflectivity; of the first such kind, where there are two."""
    found = [key for key in file if re.fullmatch(r"image\d+", key) and "image_data" in file[key]]
    names = sorted(found, key=lambda key: int(key.removeprefix("image")))
    kinds = {name: str(plain(file[name].attrs["image_geo_parameter"])).upper() for name in names}
    known = [name for name in names if kinds[name].endswith(_KINDS)] or names[:1]
    return [name for name in known if kinds[name] == kinds[known[0]]]


def _chosen(names: list[str], options: ReadOptions, path: Path) -> list[str]:
    """Names of the images that are meant."""
    select = dict(options.select)
    if not select:
        return names
    wanted = [f"image{word.strip()}" for word in select.get("image", "").split(",")]
    if set(select) != {"image"} or not set(wanted) <= set(names):
        name, text = next(iter(select.items()))
        raise UsageError(
            f"--select {name}={text}, and {path} holds {', '.join(names)}",
            expected="image, with one number or several",
            fix=f"--select image={names[0].removeprefix('image')}",
        )
    return wanted


def _times(file: Any, names: list[str], end: np.datetime64, path: Path) -> Times:
    """When each image is valid: what it states (forecasts do), else the end of the product."""
    stated = [plain(file[name].attrs.get("image_datetime_valid", "")) for name in names]
    times = [_time(text, path) if text else end for text in stated]
    return np.array(times, "datetime64[ns]")


def _span_s(times: Times, whole_s: float) -> float | None:
    """Seconds that an amount is of: the product's, or in a forecast those between its images."""
    if len(times) < 2:
        return whole_s
    steps = {float(step / np.timedelta64(1, "s")) for step in np.diff(np.sort(times))}
    return (steps.pop() or whole_s) if len(steps) == 1 else None


def _several(path: Path, names: list[str], how: str) -> FrameError:
    return FrameError(
        f"{path} holds {len(names)} images {how}: {', '.join(names[:6])}",
        expected="one, or one for each time",
        fix=f"--select image={names[0].removeprefix('image')}",
    )


def _image(
    image: Any, span_s: float | None, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Quantity]:
    """Values `(H, W)`, their states, and what they mean."""
    stored = whole(image["image_data"], path)
    calibration = _attributes(image["calibration"])
    quantity = _quantity(str(plain(image.attrs["image_geo_parameter"])), span_s, path)
    gain, offset = _formula(str(calibration.get("calibration_formulas", "")), path)
    state = np.full(stored.shape, VALUE, np.uint8)
    unseen = {
        int(float(calibration[key]))
        for key in ("calibration_missing_data", "calibration_out_of_image")
        if key in calibration
    }
    for number in unseen - {0} or unseen:
        state[stored == number] = NO_DATA
    state[(stored == 0) & (state != NO_DATA)] = NO_ECHO
    assert quantity.no_echo is not None
    frame = (stored * gain + offset).astype(np.float32)
    frame[state == NO_ECHO] = quantity.no_echo
    frame[state == NO_DATA] = np.nan
    return frame, state, quantity


def _attributes(group: Any) -> dict[str, Any]:
    return {key: plain(value) for key, value in group.attrs.items()}


def _quantity(parameter: str, span_s: float | None, path: Path) -> Quantity:
    if parameter.upper().endswith(_KINDS[0]):
        return rain_amount(span_s, _ZR)
    if parameter.upper().endswith(_KINDS[1]):
        return reflectivity(_ZR)
    raise FrameError(
        f"{path} holds {parameter}",
        expected="a product in [MM] or [DBZ]",
        fix="choose another product",
    )


def _formula(text: str, path: Path) -> tuple[float, float]:
    match = _FORMULA.fullmatch(re.sub(r"\s*([=*+-])\s*", r"\1", text.strip("\0 \t\n")))
    if match is None:
        raise FrameError(
            f"{path} has the calibration {text!r}",
            expected="GEO=a*PV+b",
            fix="choose another product",
        )
    gain, offset = float(match["gain"] or match["gain_"] or 1), float(match["offset"] or 0)
    return gain, -offset if match["sign"] == "-" else offset


def _time(text: Any, path: Path) -> np.datetime64:
    """`26-AUG-2010;03:00:00.000`, whatever the language of this machine."""
    match = re.fullmatch(r"(\d+)-([A-Z]{3})-(\d{4});([\d:.]+)", str(text).strip().upper())
    if match is None or match[2] not in _MONTHS:
        raise FrameError(
            f"{path} has the time {text!r}", expected="DD-MON-YYYY;HH:MM:SS", fix="repair the file"
        )
    day, month, year, clock = match.groups()
    return np.datetime64(f"{year}-{_MONTHS.index(month) + 1:02}-{int(day):02}T{clock}", "ns")


def _grid(geographic: Any, shape: tuple[int, ...], path: Path) -> tuple[Grid, Flips]:
    facts = _attributes(geographic)
    step_x, step_y = float(facts["geo_pixel_size_x"]), float(facts["geo_pixel_size_y"])
    unit = str(facts["geo_dim_pixel"]).partition(",")[0].upper()
    if unit not in ("KM", "M"):
        raise FrameError(
            f"{path} has pixels in {unit}", expected="KM or M", fix="choose another product"
        )
    scale = _KM if unit == "KM" else 1.0
    projection = _in_metres(
        str(plain(geographic["map_projection"].attrs["projection_proj4_params"]))
    )
    left = float(facts["geo_column_offset"]) * step_x * scale
    top = float(facts["geo_row_offset"]) * step_y * scale
    height, width = shape
    affine = (left, top, step_x * scale, step_y * scale)
    return placed(affine, height, width, crs_of(projection, str(path)))


def _in_metres(projection: str) -> str:
    """Radii in km become metres, and so does the plane; `y_0=0` without its plus is repaired.

    Old files have radii in km and no unit, new ones radii in metres and `+units=km`.
    """
    found = [part.lstrip("+").partition("=") for part in projection.split()]
    small = any(key in ("a", "R") and float(value) < 10_000 for key, _, value in found)
    parts = []
    for key, _, value in found:
        if key in ("units", "to_meter"):
            continue
        if small and key in ("a", "b", "R", "x_0", "y_0"):
            value = f"{float(value) * _KM:.12g}"
        parts.append(f"+{key}={value}" if value else f"+{key}")
    return " ".join([*parts, "+units=m", "+type=crs"])
