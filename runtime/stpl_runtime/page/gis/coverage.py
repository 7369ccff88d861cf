"""CoverageJSON: the values in one pixel, or in several, through time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_runtime.page.gis.layers import Layer

Document = dict[str, Any]
CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"


def parameter(layer: Layer) -> Document:
    """What its values are."""
    units = layer.units
    return {
        "type": "Parameter",
        "description": {"en": layer.title},
        "unit": {"label": {"en": units}, "symbol": units},
        "observedProperty": {"label": {"en": layer.nowcast.standard_name or layer.title}},
    }


def series_at(
    layers: dict[str, Layer], steps: list[int], times: list[str], pixel: int, place: list[float]
) -> Document:
    """The values in one pixel.

    Args:
        layers: name of a parameter -> its layer.
        steps: frames after the newest observed one.
        times: when each of them is valid.
        pixel: its number.
        place: longitude and latitude of its middle.
    """
    axes = {"x": {"values": place[:1]}, "y": {"values": place[1:]}, "t": {"values": times}}
    ranges = {
        word: _range(layer, steps, np.array([pixel]), ("t",)) for word, layer in layers.items()
    }
    return _coverage("PointSeries", axes, layers, ranges)


def series_within(
    layers: dict[str, Layer],
    steps: list[int],
    times: list[str],
    pixels: NDArray[np.int64],
    places: list[list[float]],
) -> Document:
    """The values in several pixels; see `series_at`."""
    axes = {
        "composite": {"dataType": "tuple", "coordinates": ["x", "y"], "values": places},
        "t": {"values": times},
    }
    ranges = {
        word: _range(layer, steps, pixels, ("t", "composite")) for word, layer in layers.items()
    }
    return _coverage("MultiPointSeries", axes, layers, ranges)


def _coverage(kind: str, axes: Document, layers: dict[str, Layer], ranges: Document) -> Document:
    return {
        "type": "Coverage",
        "domain": {
            "type": "Domain",
            "domainType": kind,
            "axes": axes,
            "referencing": [
                {"coordinates": ["x", "y"], "system": {"type": "GeographicCRS", "id": CRS84}},
                {
                    "coordinates": ["t"],
                    "system": {"type": "TemporalRS", "calendar": "Gregorian"},
                },
            ],
        },
        "parameters": {word: parameter(layer) for word, layer in layers.items()},
        "ranges": ranges,
    }


def _range(
    layer: Layer, steps: list[int], pixels: NDArray[np.int64], axes: tuple[str, ...]
) -> Document:
    """Its values; None at the times of other layers, and where nothing was observed."""
    values: list[float | None] = []
    for step in steps:
        values += layer.values(step, pixels) if step in layer.steps else [None] * len(pixels)
    shape = {"t": len(steps), "composite": len(pixels)}
    return {
        "type": "NdArray",
        "dataType": "float",
        "axisNames": list(axes),
        "shape": [shape[name] for name in axes],
        "values": values,
    }
