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

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.grid import Grid, pixel_grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions, Times
from stpl_core.readers.checked import in_stated_units
from stpl_core.readers.libraries import reads_with
from stpl_core.readers.names import file_time
from stpl_core.readers.placing import Flips, placed, turned
from stpl_core.readers.projections import crs_of
from stpl_core.readers.stamps import time_in_name
from stpl_core.readers.units import cf_units, is_not_rain, rain_or_echo
from stpl_core.safety.budget import check_pixels

SUFFIXES = (".tif", ".tiff")
ABOUT = "GeoTIFF and COG, bands as channels"
_MOST_BANDS = 4096
"""More take minutes: each is asked for by itself."""
_ISO = re.compile(
    r"\s*(\d{4})[-:](\d\d)[-:](\d\d)[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)"
    r"(?:Z| ?UTC|\+00:?00)?\s*"
)
"""As ISO 8601 writes a time, or as TIFF does, with colons."""
_COMPACT = re.compile(r"\d{8}[T_ ]?\d{4}(?:\d\d)?Z?")
_TIME_TAGS = (
    "tifftag_datetime",
    "valid_time",
    "time",
    "datetime",
    "date_time",
    "acquisition_datetime",
)
"""Tags that state when a frame was observed, in any case."""


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frame of a file, `(1, bands, H, W)`, or one for each band that has its own time."""
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
            if file.count > _MOST_BANDS:
                raise FrameError(
                    f"{path} has {file.count} bands",
                    expected=f"at most {_MOST_BANDS}, each a time or a channel",
                    fix=f"gdal_translate -b 1 {path.name} OUT.tif takes the first one",
                )
            piece, flips = _piece(file, path, options)
    yield turned(piece, flips)


def _piece(file: Any, path: Path, options: ReadOptions) -> tuple[Piece, Flips]:
    """The frames as they are stored, and what turns them north up."""
    items = _items(file.tags().get("GDAL_METADATA", ""), path)
    facts = _facts(file, items)
    if file.subdatasets:
        raise FrameError(
            f"{path} holds {len(file.subdatasets)} pages",
            expected="one, with times and channels as bands",
            fix=f"gdal_translate GTIFF_DIR:1:{path.name} page.tif, and so on",
        )
    bands = _bands(file)
    _check_numbers(file, bands, facts, path)
    stored = file.read(list(bands))  # (C, H, W)
    masked = _masked(file, bands, stored, facts["nodata"])  # (C, H, W)
    masked |= _masked_beside(path, stored.shape)
    frame = _physical(stored, bands, facts)
    times = _band_times(file, bands)
    names = ("",) if times is not None else _band_names(file, bands)
    about = " ".join(text for text in (items.get("quantity", ("",))[0], *file.descriptions) if text)
    quantity = _quantity(about, items, facts["units"], names)
    if times is None:
        times = np.array([_time(file, items, path, options)])
        frames, lost = frame[None], masked.any(axis=0)[None]  # (1, C, H, W), (1, H, W)
        nothing = (stored == facts["undetect"]).all(axis=0)[None]
    else:
        frames, lost = frame[:, None], masked  # (n, 1, H, W), (n, H, W)
        nothing = stored == facts["undetect"]
    state = np.full(lost.shape, VALUE, np.uint8)
    state[nothing] = NO_ECHO
    state[lost] = NO_DATA
    if quantity.no_echo is not None:
        frames = np.where((state == NO_ECHO)[:, None], np.float32(quantity.no_echo), frames)
    frames = np.where((state == NO_DATA)[:, None], np.float32(np.nan), frames)
    grid, flips = _grid(file, path)
    order = np.argsort(times, kind="stable")
    piece = Piece(
        frames=frames[order],
        state=state[order],
        grid=grid,
        quantity=quantity,
        source=str(path),
        time=times[order],
    )
    if options.units is None:  # else the user's word counts
        piece = in_stated_units(piece, quantity.units, about)
    return piece, flips


def _check_numbers(file: Any, bands: tuple[int, ...], facts: dict[str, Any], path: Path) -> None:
    """Refuse bands of which no values can be made, or values of several units."""
    for band in bands:
        gain, offset = facts["gain"][band - 1], facts["offset"][band - 1]
        if not (np.isfinite(gain) and np.isfinite(offset) and gain):
            raise FrameError(
                f"{path} has the scale {gain:g} and the offset {offset:g}",
                expected="numbers, and a scale that is not 0",
                fix="gdal_edit.py -scale NUMBER -offset NUMBER FILE, with the true ones",
            )
        if np.dtype(file.dtypes[band - 1]).kind == "c":
            raise FrameError(
                f"{path} holds complex numbers",
                expected="real ones",
                fix=f"gdal_translate DERIVED_SUBDATASET:AMPLITUDE:{path.name} real.tif",
            )
    stated = {cf_units(unit) for band in bands if (unit := file.units[band - 1])}
    if len(stated) > 1:
        raise FrameError(
            f"{path} has bands in {' and '.join(sorted(stated))}",
            expected="bands of one unit",
            fix=f"gdal_translate -b {bands[0]} {path.name} band.tif",
        )


def _bands(file: Any) -> tuple[int, ...]:
    """Numbers, from 1 on, of the bands that are data: all but the opacity."""
    from rasterio.enums import ColorInterp

    kinds = enumerate(file.colorinterp, 1)
    return tuple(n for n, kind in kinds if kind != ColorInterp.alpha) or (1,)


def _masked(file: Any, bands: tuple[int, ...], stored: Any, nodata: float | None) -> Any:
    """`(C, H, W)`, True where a band has no data: GDAL's masks, and what is no number.

    GDAL's mask is of the file's mask or opacity, or of the bands' no-data value; it takes a value
    for that which differs from the text in the last digits. Colours are masked together: one of
    three may well have the number that stands for no data in all three.
    """
    from rasterio.enums import ColorInterp

    if file.colorinterp[0] == ColorInterp.red:
        masked = np.broadcast_to(file.dataset_mask() == 0, stored.shape).copy()
    else:
        masked = file.read_masks(list(bands)) == 0
    if nodata is not None:  # of FMI's items, which GDAL does not know
        masked |= stored == nodata
    if stored.dtype.kind == "f":
        masked |= np.isnan(stored)
    return masked


def _masked_beside(path: Path, shape: tuple[int, ...]) -> Any:
    """`(C, H, W)`: True where the mask `X.tif.msk` says so, which GDAL writes unless told not to.

    Raises:
        FrameError: it is of another size.
    """
    import rasterio

    beside = path.with_name(f"{path.name}.msk")
    if not beside.is_file():
        return np.zeros(shape, bool)
    with rasterio.open(beside.absolute(), driver="GTiff") as mask:
        if (mask.height, mask.width) != shape[1:] or mask.count not in (1, shape[0]):
            raise FrameError(
                f"{beside} is a mask of {mask.count}x{mask.height}x{mask.width}",
                expected=f"{shape[1]}x{shape[2]}, as {path.name}",
                fix="move it away if it belongs to another file",
            )
        return np.broadcast_to(mask.read() == 0, shape)


def _physical(stored: Any, bands: tuple[int, ...], facts: dict[str, Any]) -> Array:
    gain, offset = (
        np.array([facts[key][band - 1] for band in bands])[:, None, None]
        for key in ("gain", "offset")
    )
    if np.all(gain == 1) and np.all(offset == 0):
        return np.asarray(stored, np.float32)
    return np.asarray(stored * gain + offset, np.float32)


def _band_times(file: Any, bands: tuple[int, ...]) -> Times | None:
    """Times of the bands, where each is described by its own, such as those that we write."""
    stamps = [_band_time(file, band) for band in bands]
    if None in stamps or len(set(stamps)) < len(stamps):
        return None
    return np.array(stamps, "datetime64[ns]")


def _band_time(file: Any, band: int) -> np.datetime64 | None:
    tags = file.tags(band)
    for text in (tags.get("valid_time", ""), file.descriptions[band - 1] or ""):
        if _COMPACT.fullmatch(text):
            return time_in_name(text)
        stamp = _iso(text)
        if stamp is not None:
            return stamp
    return None


def _iso(text: str) -> np.datetime64 | None:
    """A time as ISO 8601 writes it, of UTC; None where the text is none."""
    match = _ISO.fullmatch(text)
    try:
        return None if match is None else np.datetime64("{}-{}-{}T{}".format(*match.groups()), "ns")
    except ValueError:  # digits that are no date
        return None


def _band_names(file: Any, bands: tuple[int, ...]) -> tuple[str, ...]:
    if len(bands) == 1:
        return (file.descriptions[bands[0] - 1] or "",)
    names = tuple(file.descriptions[band - 1] or "" for band in bands)
    return names if all(names) else tuple(f"band{n}" for n in range(1, len(bands) + 1))


def _items(xml: str, path: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Items of GDAL_METADATA by name, lower case: text and attributes."""
    if not xml.strip():
        return {}
    if "<!" in xml:
        raise FrameError(
            f"{path} declares entities in its metadata", expected="plain items", fix="rewrite it"
        )
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314  # nosec B314
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
    return {
        "gain": file.scales if gain is None else (gain,) * file.count,
        "offset": file.offsets if offset is None else (offset,) * file.count,
        "nodata": number("nodata"),
        "undetect": number("undetect"),
        "units": cf_units(units or file.units[0] or _unit_tag(file)),
    }


def _unit_tag(file: Any) -> str | None:
    """The unit in a tag of the file or, as GDAL writes those of NetCDF, of its first band."""
    tags = {key.lower(): text for key, text in (file.tags(1) | file.tags()).items()}
    return tags.get("units")


def _quantity(about: str, items: Any, units: str, bands: tuple[str, ...]) -> Quantity:
    made = rain_or_echo(units) if len(bands) == 1 and not is_not_rain(about) else None
    if made is not None:
        return made
    name = items["quantity"][0] if "quantity" in items else "values"
    return Quantity(name, units, channels=bands)


def _time(file: Any, items: Any, path: Path, options: ReadOptions) -> np.datetime64:
    """The item "Observation time", the TIFF's own date, or the time in the name."""
    written = items.get("observation time", ("", {}))[0]
    if options.time_format is None and (stamp := time_in_name(written)) is not None:
        return stamp
    if (stamp := file_time(path, options)) is not None:
        return stamp
    tags = {key.lower(): text for key, text in file.tags().items()}
    for key in _TIME_TAGS:
        if (stamp := _iso(tags.get(key, ""))) is not None:
            return stamp
    local = next((f" of UTC, but {tags[key]}" for key in _TIME_TAGS if tags.get(key)), "")
    raise FrameError(
        f"{path} says no time{local}",
        expected="the tag TIFFTAG_DATETIME or valid_time, or YYYYMMDDHHMM in the name",
        fix="--time-format PATTERN for the time in its name, or rename it: rain_202406011200.tif",
    )


def _grid(file: Any, path: Path) -> tuple[Grid, Flips]:
    transform = file.transform
    if transform.b or transform.d:
        raise FrameError(
            f"{path} is rotated",
            expected="rows and columns along the axes",
            fix=f"gdalwarp {path.name} straight.tif",
        )
    if transform.is_identity:  # no place, and rows as a picture has them
        if file.gcps[0]:
            raise FrameError(
                f"{path} is placed by {len(file.gcps[0])} control points",
                expected="pixels of one size along the axes",
                fix=f"gdalwarp {path.name} straight.tif",
            )
        return pixel_grid(file.height, file.width), (slice(None), slice(None))
    crs = crs_of(file.crs.to_wkt(), str(path)) if file.crs else None
    affine = (transform.c, transform.f, transform.a, transform.e)
    return placed(affine, file.height, file.width, crs)
