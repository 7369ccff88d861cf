"""OGC API - EDR 1.1 of the newest nowcasts: values at a position or in an area, CoverageJSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import numpy as np

from stpl_core import __version__
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.page.gis.areas import NUMBER, pixels_within, rings_of
from stpl_runtime.page.gis.coverage import (
    CRS84,
    Document,
    parameter,
    series_at,
    series_within,
)
from stpl_runtime.page.gis.ground import DEGREES
from stpl_runtime.page.gis.layers import FORECAST, Layer, layers_of
from stpl_runtime.page.gis.openapi import COVERAGE, OPENAPI, openapi
from stpl_runtime.page.gis.refusal import RefusedError, quoted
from stpl_runtime.page.gis.times import places_in
from stpl_runtime.timing import utc_text

JSON = "application/json"
_CONFORMANCE = (
    "http://www.opengis.net/spec/ogcapi-common-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-common-2/1.0/conf/collections",
    "http://www.opengis.net/spec/ogcapi-edr-1/1.1/conf/core",
    "http://www.opengis.net/spec/ogcapi-edr-1/1.1/conf/covjson",
)
_SYSTEMS = ("", "CRS84", "CRS:84", "OGC:CRS84", CRS84)
_FORMATS = ("", "CoverageJSON", "covjson", "json", COVERAGE)
_QUERIES = {"position": "the values at a position", "area": "the values in an area"}
MOST_VALUES = 500_000
"""Of one answer, all times and parameters together: some MB of JSON."""
_POINT = re.compile(rf"\s*POINT\s*\(\s*{NUMBER}\s+{NUMBER}\s*\)\s*", re.IGNORECASE)


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
            "description": f"The newest nowcast of stpl-deploy {__version__}: values.",
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
                *(
                    self._link(f"{at}/{word}", "data", about, COVERAGE)
                    for word, about in _QUERIES.items()
                ),
            ],
            "extent": {
                "spatial": {"bbox": [list(main.ground.degrees)], "crs": CRS84},
                "temporal": {
                    "interval": [[times[0], times[-1]]],
                    "values": times,
                    "trs": "Gregorian",
                },
            },
            "data_queries": {word: self._query_of(at, word) for word in _QUERIES},
            "crs": ["CRS84"],
            "output_formats": ["CoverageJSON"],
            "parameter_names": {word: parameter(layer) for word, layer in layers.items()},
        }

    def position(self, name: str, given: Mapping[str, str]) -> Document:
        """What was observed and what is forecast in the pixel that holds a place.

        Args:
            name: of the collection.
            given: `coords`, and perhaps `parameter-name`, `datetime`, `crs` and `f`.

        Raises:
            RefusedError: it cannot be answered.
        """
        asked = self._asked(name, given)
        lon, lat = _place(given.get("coords", ""))
        pixel = asked.main.ground.pixel(DEGREES, lon, lat)
        if pixel is None:
            raise _beside(f"{lon:g} {lat:g}", asked.main)
        centre = [round(degrees, 6) for degrees in asked.main.ground.centre(*pixel)]
        number = pixel[1] * asked.main.ground.grid.width + pixel[0]
        return series_at(asked.layers, asked.steps, asked.times, number, centre)

    def area(self, name: str, given: Mapping[str, str]) -> Document:
        """What was observed and what is forecast in the pixels whose middles lie in an area.

        Args:
            name: of the collection.
            given: see `position`; `coords` is a POLYGON or a MULTIPOLYGON.

        Raises:
            RefusedError: it cannot be answered, or the answer is too large.
        """
        asked = self._asked(name, given)
        rings, ground = rings_of(given.get("coords", "")), asked.main.ground
        pixels = pixels_within(rings, ground)
        if not len(pixels):
            raise _beside("no pixel's middle is in the area, which is small or", asked.main)
        count = len(pixels) * len(asked.steps) * len(asked.layers)
        if count > MOST_VALUES:
            raise RefusedError(
                f"{count:,} values: expected at most {MOST_VALUES:,}; ask for a smaller area, for "
                "fewer times (datetime=) or parameters (parameter-name=), or take "
                "/nowcast/latest?format=nc",
                status=413,
            )
        middles = ground.centres(pixels % ground.grid.width, pixels // ground.grid.width)
        places: list[list[float]] = np.round(np.stack(middles, axis=1), 6).tolist()
        return series_within(asked.layers, asked.steps, asked.times, pixels, places)

    def _asked(self, name: str, given: Mapping[str, str]) -> _Asked:
        layers = self._of(name)
        _checked(given)
        names = given.get("parameter-name") or given.get("parameter_names", "")  # as OWSLib has it
        main, chosen = layers[FORECAST], _chosen(layers, names)
        times, when = _times(main.nowcast), given.get("datetime", "")
        places = places_in(when, times, "datetime") if when else range(len(times))
        first = 1 - len(main.nowcast.context_times)
        return _Asked(
            main, chosen, [first + n for n in places], [utc_text(times[n]) for n in places]
        )

    def _of(self, name: str) -> dict[str, Layer]:
        if name not in self._streams:
            there = ", ".join(self._streams)
            raise RefusedError(f"no collection {quoted(name)}; there are {there}", status=404)
        return self._streams[name]

    def _query_of(self, at: str, word: str) -> Document:
        variables = {
            "query_type": word,
            "output_formats": ["CoverageJSON"],
            "default_output_format": "CoverageJSON",
            "crs_details": [{"crs": "CRS84", "wkt": CRS84}],
        }
        link = self._link(f"{at}/{word}", "data", _QUERIES[word])
        return {"link": {**link, "variables": variables}}

    def _link(self, path: str, rel: str, title: str, media: str = JSON) -> Document:
        href = f"{self._url}{path}{self._query}"
        return {"href": href, "rel": rel, "type": media, "title": title}


class _Asked(NamedTuple):
    """What is asked for of a collection, whatever the place."""

    main: Layer
    layers: dict[str, Layer]
    """Name of a parameter -> its layer."""
    steps: list[int]
    """Frames after the newest observed one."""
    times: list[str]
    """When each of them is valid."""


def _times(nowcast: Nowcast) -> tuple[datetime, ...]:
    return (*nowcast.context_times, *nowcast.valid_times)


def _checked(given: Mapping[str, str]) -> None:
    for name, words in (("crs", _SYSTEMS), ("f", _FORMATS), ("z", ("",))):
        asked = given.get(name, "")
        if asked not in words:
            there = ", ".join(words[1:3]) or "none: the values are of the surface"
            raise RefusedError(f"{name}={quoted(asked)}: expected {there}")


def _chosen(layers: dict[str, Layer], names: str) -> dict[str, Layer]:
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


def _beside(what: str, main: Layer) -> RefusedError:
    west, south, east, north = (round(edge, 4) for edge in main.ground.degrees)
    return RefusedError(
        f"{what} lies beside the frames, which lie within {west:g} to {east:g} east and "
        f"{south:g} to {north:g} north",
        status=404,
    )
