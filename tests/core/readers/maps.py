"""Projections that radar, satellite and model fields come in, each with a place that it is for."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import pyproj


class Map(NamedTuple):
    """A projection, and the middle of a field in it."""

    definition: str
    lon: float
    lat: float

    @property
    def crs(self) -> pyproj.CRS:
        return _crs(self.definition)

    @property
    def degrees(self) -> bool:
        return bool(self.crs.is_geographic)

    def middle(self) -> tuple[float, float]:
        """In the units of the projection."""
        onto = pyproj.Transformer.from_crs(self.crs.geodetic_crs, self.crs, always_xy=True)
        x, y = onto.transform(self.lon, self.lat)
        return float(x), float(y)


@lru_cache
def _crs(definition: str) -> pyproj.CRS:
    return pyproj.CRS(definition)


MAPS = {
    "latitude and longitude": Map("OGC:CRS84", 5.0, 52.0),
    "rotated pole": Map(
        "+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +R=6371229 +type=crs",
        10.0,
        55.0,
    ),
    "polar stereographic A": Map(
        "+proj=stere +lat_0=90 +k_0=0.933012709177 +lon_0=10 +R=6370040", 12.0, 52.0
    ),
    "polar stereographic B, north": Map(
        "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=20 +ellps=WGS84", 25.0, 61.0
    ),
    "polar stereographic B, south": Map(
        "+proj=stere +lat_0=-90 +lat_ts=-71 +lon_0=0 +ellps=WGS84", 10.0, -70.0
    ),
    "universal polar stereographic": Map("EPSG:32661", 10.0, 80.0),
    "Lambert, two parallels": Map(
        "+proj=lcc +lat_1=30 +lat_2=60 +lat_0=39 +lon_0=-96 +ellps=GRS80", -96.0, 40.0
    ),
    "Lambert, one parallel": Map(
        "+proj=lcc +lat_1=38.5 +lat_0=38.5 +lon_0=262.5 +R=6371229", -97.0, 40.0
    ),
    "Lambert, scaled": Map(
        "+proj=lcc +lat_1=46.8 +lat_0=46.8 +k_0=0.99987742 +x_0=600000 +y_0=2200000 +ellps=clrk80",
        2.0,
        47.0,
    ),
    "geostationary, sweep x": Map(
        "+proj=geos +h=35786023 +lon_0=-75 +sweep=x +ellps=GRS80", -80.0, 20.0
    ),
    "geostationary, sweep y": Map(
        "+proj=geos +h=35785831 +lon_0=9.5 +sweep=y +ellps=WGS84", 10.0, 45.0
    ),
    "Mercator, scaled": Map("+proj=merc +lon_0=100 +k_0=0.9 +ellps=WGS84", 105.0, 20.0),
    "Mercator, parallel": Map("+proj=merc +lat_ts=20 +lon_0=10 +ellps=WGS84", 10.0, 45.0),
    "web Mercator": Map("EPSG:3857", 10.0, 45.0),
    "azimuthal equidistant": Map("+proj=aeqd +lat_0=52 +lon_0=13 +ellps=WGS84", 13.0, 52.5),
    "azimuthal equal area": Map("EPSG:3035", 10.0, 52.0),
    "transverse Mercator": Map("EPSG:27700", -2.0, 54.0),
    "UTM": Map("EPSG:32632", 9.0, 48.0),
    "Albers": Map("EPSG:5070", -96.0, 40.0),
    "stereographic": Map("+proj=stere +lat_0=52 +lon_0=19 +ellps=WGS84", 19.0, 52.0),
    "sinusoidal": Map("+proj=sinu +R=6371007", 10.0, 45.0),
    "feet": Map("EPSG:2263", -74.0, 40.7),
    "kilometres": Map(
        "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=0 +ellps=WGS84 +units=km", 5.0, 52.0
    ),
}
"""All of which CF has a name for."""
