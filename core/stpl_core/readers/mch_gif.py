"""MeteoSwiss's radar pictures (GIF): product and time in the name, values in the palette.

`RZC` is a rain rate and `AZC` an amount, both by colour; `AQC` and `CPC` are amounts by the number
of the pixel. All lie on the Swiss radar domain, which the file does not say. pysteps agrees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions
from stpl_core.readers.images import open_picture
from stpl_core.readers.names import file_time
from stpl_core.readers.projections import wkt_of
from stpl_core.readers.stamps import year_and_day
from stpl_core.readers.units import rain_amount, rain_rate

SUFFIXES = (".gif",)
ABOUT = "MeteoSwiss GIF: RZC, AZC, AQC, CPC"
_NAME = re.compile(
    r"(?P<product>RZC|AZC|AQC|CPC)(?P<stamp>\d{9})\w{0,3}?(?:_(?P<minutes>\d{5}))?\."
)
_SIZE = (640, 710)
_AFFINE = (255_000.0, 480_000.0, 1000.0, -1000.0)
_LV03 = "EPSG:21781"
_ZR = (316.0, 1.5)
_LEAST = 1e-3
"""Below it the palette has only its colour for no rain."""
_PRODUCTS = "RZC, AZC, AQC, CPC"


def recognises(path: Path) -> bool:
    """Whether its name is that of a product."""
    return path.is_file() and _NAME.match(path.name) is not None


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the one frame of a picture."""
    match = _NAME.match(path.name)
    if match is None:
        raise FrameError(
            f"the name {path.name} holds no product of MeteoSwiss",
            expected=f"such as RZC161210545VL.801.gif ({_PRODUCTS})",
            fix="the name under which MeteoSwiss wrote it",
        )
    numbers, colours = _stored(path)
    if match["product"] in ("AQC", "CPC"):
        values, no_data = _by_number(numbers)
    else:
        values, no_data = _by_colour(numbers, colours, match["product"], path)
    state = np.full(values.shape, VALUE, np.uint8)
    state[values == 0] = NO_ECHO
    state[no_data] = NO_DATA
    frame = values.astype(np.float32)
    frame[state == NO_DATA] = np.nan
    stamp = file_time(path, options) if options.time_format else year_and_day(match["stamp"])
    if stamp is None:
        raise FrameError(
            f"the name {path.name} has the time {match['stamp']}",
            expected="YYJJJHHMM: year, day of the year, hour, minute",
            fix="--time-format PATTERN for the time in its name",
        )
    yield Piece(
        frames=frame[None, None],  # (1, 1, H, W)
        state=state[None],
        grid=Grid(_AFFINE, *_SIZE, wkt_of(_LV03, str(path))),
        quantity=_quantity(match),
        source=str(path),
        time=np.array([stamp]),
        notes={"institution": "MeteoSwiss"},
    )


def _stored(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Numbers of the palette `(H, W)`, and its colours `(256, 3)`."""
    with open_picture(path, path, formats=("GIF",)) as image:
        size = (image.height, image.width)
        if size != _SIZE or getattr(image, "n_frames", 1) > 1 or image.mode not in ("P", "L"):
            raise FrameError(
                f"{path} is a picture of {size[0]}x{size[1]}, {image.mode}",
                expected=f"{_SIZE[0]}x{_SIZE[1]} with one palette: the Swiss radar domain",
                fix="use the file as MeteoSwiss wrote it",
            )
        numbers = np.asarray(image)
        palette = image.getpalette("RGB") or [n for n in range(256) for _ in range(3)]
    colours = np.zeros((256, 3), np.uint8)
    found = np.array(palette, np.uint8).reshape(-1, 3)
    colours[: len(found)] = found
    return numbers, colours


def _by_number(numbers: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Amounts of AQC and CPC: the number is a reflectivity, and rain by 316 R^1.5."""
    n = np.arange(256.0)
    values = (10.0 ** ((n - 71.5) / 20.0) / _ZR[0]) ** (1.0 / _ZR[1])
    values[[0, 1, *range(251, 255)]] = 0.0
    return values[numbers], numbers == 255


def _by_colour(
    numbers: NDArray[np.uint8], colours: NDArray[np.uint8], product: str, path: Path
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values by the colours of the product's palette.

    Raises:
        FrameError: a colour that is none of them.
    """
    table = _palette("rate" if product == "RZC" else "amount")
    values, lost = np.zeros(256), np.zeros(256, bool)
    for n in np.unique(numbers):
        colour = "".join(f"{part:02x}" for part in colours[n])
        if colour not in table:
            raise FrameError(
                f"{path} has the colour #{colour} in {int((numbers == n).sum())} pixels",
                expected=f"the palette of {product}",
                fix="use the file as MeteoSwiss wrote it, not a picture of a map",
            )
        value = table[colour]
        lost[n] = value is None
        values[n] = 0.0 if value is None or value < _LEAST else value
    return values[numbers], lost[numbers]


@lru_cache(maxsize=2)
def _palette(kind: str) -> dict[str, float | None]:
    """Colour to value; None is no data."""
    text = Path(__file__).with_name("mch_palettes.json").read_text("utf-8")
    found: dict[str, float | None] = json.loads(text)[kind]
    return found


def _quantity(match: re.Match[str]) -> Quantity:
    if match["product"] == "RZC":
        return rain_rate(_ZR)
    if match["minutes"]:
        return rain_amount(60.0 * int(match["minutes"]), _ZR)
    return rain_amount(300.0 if match["product"] == "AQC" else None, _ZR)
