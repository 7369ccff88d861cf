"""GeoTIFF, by rasterio; bands are channels.

FMI writes gain, offset, nodata and undetect as items of the tag GDAL_METADATA and nowhere else;
others use GDAL's own scale, offset and nodata. Both are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from stpl_core.budget import check_pixels
from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions
from stpl_core.readers.libraries import reads_with
from stpl_core.readers.names import file_time
from stpl_core.readers.projections import crs_of
from stpl_core.readers.stamps import time_in_name
from stpl_core.readers.units import cf_units, rain_rate, reflectivity

SUFFIXES = (".tif", ".tiff")
ABOUT = "GeoTIFF and COG, bands as channels"


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the one frame of a file, `(1, bands, H, W)`."""
    with reads_with("geotiff"):
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said by the grid
        # No other driver (a VRT names other files and addresses), nothing from beside the file.
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"),
            rasterio.open(path.absolute(), driver="GTiff") as file,
        ):
            check_pixels(path, file.count, file.height, file.width)
            items = _items(file.tags().get("GDAL_METADATA", ""), path)
            stored = file.read()  # (C, H, W)
            grid = _grid(file, path)
            facts = _facts(file, items)
            stamp = _time(file, items, path, options)
            bands = tuple(text or "" for text in file.descriptions)
    if len(bands) > 1 and not all(bands):
        bands = tuple(f"band{n + 1}" for n in range(len(bands)))
    quantity = _quantity(items, facts["units"], bands)
    gain, offset = (np.asarray(facts[key], np.float64)[:, None, None] for key in ("gain", "offset"))
    if np.all(gain == 1) and np.all(offset == 0):
        frame = stored.astype(np.float32)
    else:
        frame = (stored * gain.astype(np.float32) + offset.astype(np.float32)).astype(np.float32)
    state = np.full(stored.shape[1:], VALUE, np.uint8)
    if facts["undetect"] is not None:
        state[(stored == facts["undetect"]).all(axis=0)] = NO_ECHO
    if facts["nodata"] is not None:
        state[(stored == facts["nodata"]).any(axis=0)] = NO_DATA
    if stored.dtype.kind == "f":
        state[np.isnan(stored).any(axis=0)] = NO_DATA
    if quantity.no_echo is not None:
        frame[:, state == NO_ECHO] = quantity.no_echo
    frame[:, state == NO_DATA] = np.nan
    yield Piece(
        frames=frame[None],  # (1, C, H, W)
        state=state[None],
        grid=grid,
        quantity=quantity,
        source=str(path),
        time=np.array([stamp]),
    )


def _items(xml: str, path: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Items of GDAL_METADATA by name, lower case: text and attributes."""
    if not xml.strip():
        return {}
    if "<!" in xml:
        raise FrameError(
            f"{path} declares entities in its metadata", expected="plain items", fix="rewrite it"
        )
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314
    except ElementTree.ParseError as error:
        raise FrameError(
            f"{path} has metadata that are no XML: {error}", expected="items", fix="rewrite it"
        ) from error
    return {
        item.get("name", "").lower(): ((item.text or "").strip(), dict(item.attrib))
        for item in root.iter("Item")
    }


def _facts(file: Any, items: dict[str, tuple[str, dict[str, str]]]) -> dict[str, Any]:
    def number(name: str) -> float | None:
        return float(items[name][0]) if name in items else None

    gain, offset = number("gain"), number("offset")
    units = items["quantity"][1].get("unit") if "quantity" in items else None
    nodata = number("nodata")
    return {
        "gain": file.scales if gain is None else (gain,) * file.count,
        "offset": file.offsets if offset is None else (offset,) * file.count,
        "nodata": file.nodata if nodata is None else nodata,
        "undetect": number("undetect"),
        "units": cf_units(units or file.units[0] or file.tags().get("units")),
    }


def _quantity(items: Any, units: str, bands: tuple[str, ...]) -> Quantity:
    if units in ("dBZ", "mm h-1") and len(bands) == 1:
        return reflectivity() if units == "dBZ" else rain_rate()
    name = items["quantity"][0] if "quantity" in items else "values"
    return Quantity(name, units, channels=bands)


def _time(file: Any, items: Any, path: Path, options: ReadOptions) -> np.datetime64:
    """The item "Observation time", the TIFF's own date, or the time in the name."""
    written = items.get("observation time", ("", {}))[0]
    tag = file.tags().get("TIFFTAG_DATETIME", "")
    in_tag = "".join(re.findall(r"\d+", tag))
    if options.time_format is None and (stamp := time_in_name(written)) is not None:
        return stamp
    if (stamp := file_time(path, options)) is not None:
        return stamp
    if (stamp := time_in_name(in_tag)) is not None:
        return stamp
    raise FrameError(
        f"{path} says no time",
        expected="the item Observation time, or YYYYMMDDHHMM in the name",
        fix="rename it",
    )


def _grid(file: Any, path: Path) -> Grid:
    transform = file.transform
    if transform.b or transform.d or transform.a <= 0:
        raise FrameError(
            f"{path} is rotated or mirrored",
            expected="rows and columns along the axes",
            fix=f"gdalwarp {path.name} straight.tif",
        )
    crs = crs_of(file.crs.to_wkt(), str(path)) if file.crs else None
    return Grid(
        (transform.c, transform.f, transform.a, transform.e),
        file.height,
        file.width,
        "" if crs is None else crs.to_wkt(),
        crs is not None and crs.is_geographic,
    )
