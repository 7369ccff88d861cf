"""Nowcasts as GeoTIFF: one band for each lead time (and channel), described by its valid time.

Where chances were asked for, their bands come after those: of the least threshold at every lead
time (and channel), then of the next one.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from stpl_core.codec import Array
from stpl_core.errors import SinkError
from stpl_core.grid import projection_name
from stpl_core.readers.libraries import reads_with
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec
from stpl_runtime.sinks.directory import DirectorySink
from stpl_runtime.sinks.facts import facts
from stpl_runtime.sinks.file_format import FileFormat


def geotiff_bytes(nowcast: Nowcast) -> bytes:
    """A nowcast as a GeoTIFF file, float32, tiled and deflated; NaN is no data.

    Each band has the description `<valid time>` (or the lead as `+3` without times), scale 1,
    offset 0, the unit, and the tags lead_time_s, valid_time and channel. One of chances has the
    description `P(>= 1 mm h-1) <valid time>`, the unit 1 and the tag threshold.

    Raises:
        MissingExtraError: rasterio is not installed.
        SinkError: GeoTIFF has no keys for the projection, such as a rotated pole.
    """
    with reads_with("geotiff"):
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
        from rasterio.io import MemoryFile
        from rasterio.transform import Affine
    values, bands = _values(nowcast), _bands(nowcast)
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": len(bands),
        "height": values.shape[1],
        "width": values.shape[2],
        "nodata": float("nan"),
        "compress": "deflate",
        "predictor": 3,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
    }
    grid = nowcast.grid
    if grid is not None:
        left, top, width, height = grid.affine
        profile["transform"] = Affine(width, 0.0, left, 0.0, height, top)
        if grid.crs_wkt:
            profile["crs"] = rasterio.crs.CRS.from_wkt(grid.crs_wkt)
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # where there is no grid
        with memory.open(**profile) as file:
            file.write(np.ascontiguousarray(values))
            file.scales, file.offsets = (1.0,) * len(bands), (0.0,) * len(bands)
            file.units = tuple(band.unit for band in bands)
            file.descriptions = tuple(band.description for band in bands)
            file.update_tags(**_tags(nowcast))
            for n, band in enumerate(bands):
                file.update_tags(n + 1, **band.tags)
        content = bytes(memory.read())
        if grid is not None and grid.crs_wkt:
            _check_placed(content, grid.crs_wkt)
        return content


def _check_placed(content: bytes, wkt: str) -> None:
    """Refuse a file whose projection GDAL would have left to another file beside it."""
    from rasterio.io import MemoryFile

    with MemoryFile(content) as alone, alone.open() as written:
        if written.crs is None:
            raise SinkError(
                f"GeoTIFF cannot hold the projection {projection_name(wkt)}",
                expected="a projection that it has keys for",
                fix="write .nc in place of .tif, which holds any",
            )


GEOTIFF = FileFormat(
    (".tif", ".tiff"),
    geotiff_bytes,
    extra="geotiff",
    libraries=("rasterio",),
    holds_chances=True,
    media_type="image/tiff",
)
FORMATS = (GEOTIFF,)


def open_sink(rest: str, spec: SinkSpec | None = None) -> DirectorySink:
    """`tif:DIR` or `tif:FILE.tif`.

    Raises:
        MissingExtraError: rasterio is not installed.
    """
    return DirectorySink("tif", GEOTIFF, rest, spec)


class _Band(NamedTuple):
    """What is written beside the values of a band."""

    description: str
    unit: str
    tags: dict[str, str]


def _values(nowcast: Nowcast) -> Array:
    """`(bands, H, W)`."""
    frames = nowcast.masked()  # (K, C, H, W)
    bands = frames.reshape(-1, *frames.shape[2:])  # (K * C, H, W)
    if nowcast.chances is None:
        return bands
    chances = np.moveaxis(nowcast.masked_chances(), 1, 0)  # (Q, K, C, H, W)
    return np.concatenate([bands, chances.reshape(-1, *bands.shape[1:])])


def _bands(nowcast: Nowcast) -> list[_Band]:
    """In the order of `_values`."""
    count = nowcast.frames.shape[0] * nowcast.frames.shape[1]
    plain = [
        _Band(_description(nowcast, n), nowcast.units, _band_tags(nowcast, n)) for n in range(count)
    ]
    thresholds = () if nowcast.chances is None else nowcast.chances.thresholds
    return plain + [
        _Band(
            f"P(>= {threshold:g} {nowcast.units}) {band.description}",
            "1",
            band.tags | {"threshold": f"{threshold:g}"},
        )
        for threshold in thresholds
        for band in plain
    ]


def _description(nowcast: Nowcast, band: int) -> str:
    step, channel = divmod(band, nowcast.frames.shape[1])
    times = nowcast.valid_times
    text = f"{times[step]:%Y-%m-%dT%H:%M:%SZ}" if times else f"+{step + 1}"
    return text if nowcast.frames.shape[1] == 1 else f"{text} channel {channel}"


def _tags(nowcast: Nowcast) -> dict[str, str]:
    tags = {"quantity": nowcast.quantity, **facts(nowcast)}
    if nowcast.issue_time is not None:
        tags["forecast_reference_time"] = f"{nowcast.issue_time:%Y-%m-%dT%H:%M:%SZ}"
    return tags


def _band_tags(nowcast: Nowcast, band: int) -> dict[str, str]:
    step, channel = divmod(band, nowcast.frames.shape[1])
    tags = {"channel": str(channel), "step": str(step + 1)}
    if nowcast.valid_times:
        assert nowcast.issue_time is not None, "a nowcast with times"
        lead = nowcast.valid_times[step] - nowcast.issue_time
        tags["lead_time_s"] = f"{lead.total_seconds():g}"
        tags["valid_time"] = f"{nowcast.valid_times[step]:%Y-%m-%dT%H:%M:%SZ}"
    return tags
