"""OGC API - EDR 1.1 of the newest nowcasts: the values at a position, as CoverageJSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stpl_core import __version__
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.page.gis.ground import DEGREES
from stpl_runtime.page.gis.layers import FORECAST, Layer, layers_of
from stpl_runtime.page.gis.openapi import COVERAGE, OPENAPI, openapi
from stpl_runtime.page.gis.refusal import RefusedError, quoted
from stpl_runtime.page.gis.times import places_in
from stpl_runtime.timing import utc_text

Document = dict[str, Any]
JSON = "application/json"
_CONFORMANCE = (
    "http://www.opengis.net/spec/ogcapi-common-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-common-2/1.0/conf/collections",
    "http://www.opengis.net/spec/ogcapi-edr-1/1.1/conf/core",
    "http://www.opengis.net/spec/ogcapi-edr-1/1.1/conf/covjson",
)
_CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
_SYSTEMS = ("", "CRS84", "CRS:84", "OGC:CRS84", _CRS84)
_FORMATS = ("", "CoverageJSON", "covjson", "json", COVERAGE)
_NUMBER = r"([-+]?[0-9]{1,4}(?:\.[0-9]{0,20})?(?:[eE][-+]?[0-9]{1,2})?)"
_POINT = re.compile(rf"\s*POINT\s*\(\s*{_NUMBER}\s+{_NUMBER}\s*\)\s*", re.IGNORECASE)


class Edr:
    """The documents of the newest nowcasts."""

    def __init__(self, nowcasts: Mapping[str, Nowcast], url: str, query: str = "") -> None:
        """Look at them.

        Args:
            nowcasts: stream -> its newest one.
            url: of the landing page, without a slash at its end.
            query: what every address needs, such as `?token=...`.

        Raises:
            RefusedError: no nowcast, or none on the Earth.
            MissingExtraError: pyproj is not installed.
        """
        self._url, self._query = url, query
        self._streams: dict[str, dict[str, Layer]] = {}
        for layer in layers_of(nowcasts).values():
            if layer.times:
                name = layer.nowcast.stream or FORECAST
                self._streams.setdefault(name, {})[layer.word] = layer

    def landing(self) -> Document:
        """What there is."""
        return {
            "title": "Live nowcasts",
            "description": f"The newest nowcast of stpl-deploy {__version__}, at a position.",
            "links": [
                self._link("", "self", "this document"),
                self._link("/conformance", "conformance", "the conformance classes"),
                self._link("/collections", "data", "the nowcasts"),
                self._link("/api", "service-desc", "this API", OPENAPI),
            ],
        }

    def conformance(self) -> Document:
        """Of which parts of the standard there are answers."""
        return {"conformsTo": list(_CONFORMANCE)}

    def api(self) -> Document:
        """The API as OpenAPI."""
        return openapi(self._url)

    def collections(self) -> Document:
        """One collection for each stream."""
        return {
            "links": [self._link("/collections", "self", "this document")],
            "collections": [self.collection(name) for name in self._streams],
        }

    def collection(self, name: str) -> Document:
        """One stream's newest nowcast.

        Raises:
            RefusedError: there is no such collection.
        """
        layers, at = self._of(name), f"/collections/{name}"
        main = layers[FORECAST]
        times = [utc_text(time) for time in _times(main.nowcast)]
        assert main.nowcast.issue_time is not None, "a nowcast with times"
        return {
            "id": name,
            "title": main.title,
            "description": f"issued {utc_text(main.nowcast.issue_time)}",
            "links": [
                self._link(at, "self", "this document"),
                self._link(f"{at}/position", "data", "the values at a position", COVERAGE),
            ],
            "extent": {
                "spatial": {"bbox": [list(main.ground.degrees)], "crs": _CRS84},
                "temporal": {
                    "interval": [[times[0], times[-1]]],
                    "values": times,
                    "trs": "Gregorian",
                },
            },
            "data_queries": {
                "position": {
                    "link": {
                        **self._link(f"{at}/position", "data", "the values at a position"),
                        "variables": {
                            "query_type": "position",
                            "output_formats": ["CoverageJSON"],
                            "default_output_format": "CoverageJSON",
                            "crs_details": [{"crs": "CRS84", "wkt": _CRS84}],
                        },
                    }
                }
            },
            "crs": ["CRS84"],
            "output_formats": ["CoverageJSON"],
            "parameter_names": {word: _parameter(layer) for word, layer in layers.items()},
        }

    def position(self, name: str, given: Mapping[str, str]) -> Document:
        """What was observed and what is forecast in the pixel that holds a place.

        Args:
            name: of the collection.
            given: `coords`, and perhaps `parameter-name`, `datetime`, `crs` and `f`.

        Raises:
            RefusedError: it cannot be answered.
        """
        layers = self._of(name)
        _checked(given)
        names = given.get("parameter-name") or given.get("parameter_names", "")  # as OWSLib has it
        main, asked = layers[FORECAST], _asked(layers, names)
        lon, lat = _place(given.get("coords", ""))
        pixel = main.ground.pixel(DEGREES, lon, lat)
        if pixel is None:
            west, south, east, north = (round(edge, 4) for edge in main.ground.degrees)
            raise RefusedError(
                f"{lon:g} {lat:g} lies beside the frames, which lie within {west:g} to {east:g} "
                f"east and {south:g} to {north:g} north",
                status=404,
            )
        times = _times(main.nowcast)
        first, when = 1 - len(main.nowcast.context_times), given.get("datetime", "")
        chosen = places_in(when, times, "datetime") if when else range(len(times))
        steps = [first + n for n in chosen]
        centre = [round(degrees, 6) for degrees in main.ground.centre(*pixel)]
        return {
            "type": "Coverage",
            "domain": _domain(centre, [utc_text(times[n]) for n in chosen]),
            "parameters": {word: _parameter(layer) for word, layer in asked.items()},
            "ranges": {word: _range(layer, steps, pixel) for word, layer in asked.items()},
        }

    def _of(self, name: str) -> dict[str, Layer]:
        if name not in self._streams:
            there = ", ".join(self._streams)
            raise RefusedError(f"no collection {quoted(name)}; there are {there}", status=404)
        return self._streams[name]

    def _link(self, path: str, rel: str, title: str, media: str = JSON) -> Document:
        href = f"{self._url}{path}{self._query}"
        return {"href": href, "rel": rel, "type": media, "title": title}


def _times(nowcast: Nowcast) -> tuple[Any, ...]:
    return (*nowcast.context_times, *nowcast.valid_times)


def _checked(given: Mapping[str, str]) -> None:
    for name, words in (("crs", _SYSTEMS), ("f", _FORMATS), ("z", ("",))):
        asked = given.get(name, "")
        if asked not in words:
            there = ", ".join(words[1:3]) or "none: the values are of the surface"
            raise RefusedError(f"{name}={quoted(asked)}: expected {there}")


def _asked(layers: dict[str, Layer], names: str) -> dict[str, Layer]:
    if not names:
        return layers
    words = [name.strip() for name in names.split(",")]
    unknown = [word for word in words if word not in layers]
    if unknown:
        raise RefusedError(
            f"parameter-name={quoted(unknown[0])}: expected some of {', '.join(layers)}"
        )
    return {word: layers[word] for word in words}


def _place(coords: str) -> tuple[float, float]:
    found = _POINT.fullmatch(coords)
    lon, lat = (float(found[1]), float(found[2])) if found else (0.0, 91.0)
    if not (abs(lon) <= 360.0 and abs(lat) <= 90.0):
        raise RefusedError(
            f"coords={quoted(coords)}: expected longitude and latitude, such as POINT(5.2 52.1)"
        )
    return lon, lat


def _parameter(layer: Layer) -> Document:
    units = layer.units
    return {
        "type": "Parameter",
        "description": {"en": layer.title},
        "unit": {"label": {"en": units}, "symbol": units},
        "observedProperty": {"label": {"en": layer.nowcast.standard_name or layer.title}},
    }


def _domain(centre: list[float], times: list[str]) -> Document:
    return {
        "type": "Domain",
        "domainType": "PointSeries",
        "axes": {
            "x": {"values": centre[:1]},
            "y": {"values": centre[1:]},
            "t": {"values": times},
        },
        "referencing": [
            {"coordinates": ["x", "y"], "system": {"type": "GeographicCRS", "id": _CRS84}},
            {"coordinates": ["t"], "system": {"type": "TemporalRS", "calendar": "Gregorian"}},
        ],
    }


def _range(layer: Layer, steps: list[int], pixel: tuple[int, int]) -> Document:
    """Its values; None at the times of other layers, and where nothing was observed."""
    values = [layer.value(step, *pixel) if step in layer.steps else None for step in steps]
    return {
        "type": "NdArray",
        "dataType": "float",
        "axisNames": ["t"],
        "shape": [len(values)],
        "values": values,
    }
