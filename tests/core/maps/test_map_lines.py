"""The map of a grid: known places, every projection, and the edges of the Earth."""

from __future__ import annotations

import math
from importlib.resources import files

import numpy as np
import pytest

pyproj = pytest.importorskip("pyproj")

from stpl_core.grid import Grid  # noqa: E402
from stpl_core.maps.lines import degree_text, map_lines, scale_bar  # noqa: E402
from stpl_core.maps.placing import Place, distance_km  # noqa: E402
from stpl_core.maps.world import LAYERS, LEVELS, Lines, cities, level_for, lines  # noqa: E402
from tests.core.readers.maps import MAPS, Map  # noqa: E402

KNMI = "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378140 +b=6356750 +x_0=0 +y_0=0"
KNMI_CORNERS = ((0.0, 49.362064), (0.0, 55.973602), (10.856453, 55.388973), (9.0093, 48.8953))
"""Lower left, upper left, upper right, lower right, as KNMI's files state them."""


def grid_of(
    definition: str, affine: tuple[float, float, float, float], height: int, width: int
) -> Grid:
    crs = pyproj.CRS(definition)
    return Grid(affine, height, width, crs.to_wkt(), bool(crs.is_geographic))


@pytest.fixture(scope="module")
def knmi() -> Grid:
    return grid_of(KNMI, (0.0, -3649982.0, 1000.0, -1000.0), 765, 700)


def around(place: Map, pixels: int = 400) -> Grid:
    """About 800 km around the middle of a field."""
    x, y = place.middle()
    step = (0.02 if place.degrees else 2000.0) / (
        place.crs.axis_info[0].unit_conversion_factor if not place.degrees else 1.0
    )
    half = step * pixels / 2
    return grid_of(place.definition, (x - half, y + half, step, -step), pixels, pixels)


def test_the_corners_are_where_the_service_says(knmi: Grid) -> None:
    found = Place(knmi).degrees(np.array([(0, 765), (0, 0), (700, 0), (700, 765)], float))
    np.testing.assert_allclose(found, KNMI_CORNERS, atol=0.001)


def test_cities_by_the_formula_of_the_projection(knmi: Grid) -> None:
    """Polar stereographic on an ellipsoid, as Snyder gives it (equations 21-33 and 21-34)."""
    a, b, true_at = 6378140.0, 6356750.0, math.radians(60)
    e = math.sqrt(1 - (b / a) ** 2)

    def t(lat: float) -> float:
        turned = ((1 - e * math.sin(lat)) / (1 + e * math.sin(lat))) ** (e / 2)
        return math.tan(math.pi / 4 - lat / 2) / turned

    m = math.cos(true_at) / math.sqrt(1 - (e * math.sin(true_at)) ** 2)
    places = {city.name: city for city in cities()}
    spots = {spot.name: spot for spot in map_lines(knmi).cities}
    assert set(spots) == {"Amsterdam", "The Hague", "Brussels", "Luxembourg"} & set(spots)
    assert len(spots) >= 3
    for name, spot in spots.items():
        lon, lat = math.radians(places[name].lon), math.radians(places[name].lat)
        far = a * m * t(lat) / t(true_at)
        x, y = far * math.sin(lon), -far * math.cos(lon)
        assert spot.x == pytest.approx(x / 1000, abs=1e-3)
        assert spot.y == pytest.approx((-3649982 - y) / 1000, abs=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_every_projection_there_and_back(name: str) -> None:
    grid = around(MAPS[name])
    place = Place(grid)
    middle = place.pixels(np.array([[MAPS[name].lon, MAPS[name].lat]]))
    if name != "rotated pole":  # whose plane is degrees that are no longitudes
        np.testing.assert_allclose(middle, [[200, 200]], atol=1e-3)
    edges = np.random.default_rng(1).uniform(0, 400, (50, 2))
    np.testing.assert_allclose(place.pixels(place.degrees(edges)), edges, atol=0.01)
    found = map_lines(grid)
    assert found.meridians
    assert found.parallels
    ends = place.degrees(np.array([[200.0, 200.0], [200.0 + found.bar, 200.0]]))
    assert distance_km(ends[:1], ends[1:])[0] == pytest.approx(found.bar_km, rel=0.05)
    every = [line for layer in found.layers.values() for line in layer]
    steps = [np.hypot(*np.diff(line, axis=0).T).max() for line in every]
    assert max(steps, default=0.0) < 150


def test_a_rotated_pole_by_its_formula() -> None:
    """Cosine and sine rules: the rotated pole lies at 39.25 N, 162 W."""
    where = MAPS["rotated pole"]
    grid = around(where)
    tilt, lon, lat = math.radians(90 - 39.25), math.radians(where.lon - 18), math.radians(where.lat)
    x = math.cos(lat) * math.cos(lon) * math.cos(tilt) + math.sin(lat) * math.sin(tilt)
    z = math.sin(lat) * math.cos(tilt) - math.cos(lat) * math.cos(lon) * math.sin(tilt)
    y = math.cos(lat) * math.sin(lon)
    turned = math.degrees(math.atan2(y, x)), math.degrees(math.asin(z))
    left, top, step, down = grid.affine
    expected = [(turned[0] - left) / step, (turned[1] - top) / down]
    found = Place(grid).pixels(np.array([[where.lon, where.lat]]))[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("lon", "lat"),
    [(-9.270, 42.883), (-5.716, 50.066), (25.780, 71.170), (22.485, 36.386), (-81.81, 24.55)],
    ids=["Finisterre", "Land's End", "North Cape", "Matapan", "Key West"],
)
def test_coasts_pass_by_known_capes(lon: float, lat: float) -> None:
    grid = grid_of("OGC:CRS84", (lon - 2, lat + 2, 0.01, -0.01), 400, 400)
    every = np.concatenate(map_lines(grid).layers["coasts"])
    away = distance_km(Place(grid).degrees(every), np.array([[lon, lat]]))
    assert away.min() < 4.0


def test_borders_lakes_and_rivers() -> None:
    """The Rhine between Germany and France, Lake Constance, and the 49th parallel as a curve."""
    rhine = grid_of("EPSG:32632", (350e3, 5.45e6, 500.0, -500.0), 800, 400)
    found = map_lines(rhine)
    place = Place(rhine)
    for layer, lon, lat in (("rivers", 8.1, 48.75), ("borders", 7.57, 48.1), ("lakes", 9.4, 47.6)):
        every = place.degrees(np.concatenate(found.layers[layer]))
        assert distance_km(every, np.array([[lon, lat]])).min() < 20, layer
    lcc = "+proj=lcc +lat_1=30 +lat_2=60 +lat_0=39 +lon_0=-96 +ellps=GRS80"
    prairie = grid_of(lcc, (-1.2e6, 1.4e6, 4000.0, -4000.0), 150, 600)
    line = max(map_lines(prairie, 3.0).layers["borders"], key=len)
    degrees = Place(prairie).degrees(line)
    inside = (degrees[:, 0] > -110) & (degrees[:, 0] < -98)
    np.testing.assert_allclose(degrees[inside, 1], 49.0, atol=0.01)
    assert inside.sum() > 8


def test_the_whole_earth_and_the_antimeridian_have_no_streaks() -> None:
    for left, width in ((-180.0, 720), (0.0, 720), (150.0, 120), (-190.0, 40)):
        found = map_lines(grid_of("OGC:CRS84", (left, 90.0, 0.5, -0.5), 360, width))
        for layer in LAYERS:
            for line in found.layers[layer]:
                assert np.abs(np.diff(line, axis=0)).max() < 10, (left, layer)
        assert found.layers["coasts"]
    fiji = map_lines(grid_of("OGC:CRS84", (175.0, -14.0, 0.02, -0.02), 300, 500))
    assert {name for name, _ in fiji.meridians} >= {"178°E", "180°", "178°W"}


def test_a_pole_inside() -> None:
    grid = grid_of("EPSG:3413", (-2e6, 2e6, 10e3, -10e3), 400, 400)
    found = map_lines(grid)
    names = {name for name, _ in found.meridians}
    assert {"0°", "90°E", "90°W", "180°"} <= names
    assert {"70°N", "80°N"} <= {name for name, _ in found.parallels}
    assert all(np.isfinite(line).all() for _, line in found.parallels)


def test_a_satellite_sees_no_back_of_the_earth() -> None:
    grid = grid_of(MAPS["geostationary, sweep y"].definition, (-5.5e6, 5.5e6, 2e4, -2e4), 550, 550)
    place = Place(grid)
    corner = place.degrees(np.array([[0.0, 0.0]]))
    assert np.isnan(corner).all()
    found = map_lines(grid)
    assert found.layers["coasts"]
    for lines_of in found.layers.values():
        for line in lines_of:
            assert np.hypot(*(line - 275).T).max() < 280
    assert not {"New York", "Tokyo"} & {spot.name for spot in found.cities}
    assert {"Lagos", "Rome"} <= {spot.name for spot in found.cities}


def test_coarser_levels_are_within_their_tolerance() -> None:
    """Each point of the finest coast lies near the coarse one.

    The maker measures on a flat map around each line's start: half as much again is allowed.
    """
    fine, coarse = lines("coasts", 0), lines("coasts", 3)
    longest = int(np.bincount(fine.line).argmax())
    points = fine.points[fine.line == longest][::17]
    ends = coarse.points[coarse.line == longest]
    scale = np.array([np.cos(np.radians(points[:, 1])), np.ones(len(points))]).T * 111.2
    for point, stretch in zip(points[:300], scale, strict=False):
        start = (ends[:-1] - point) * stretch
        along = np.diff(ends, axis=0) * stretch
        share = np.clip(-(start * along).sum(1) / np.maximum((along**2).sum(1), 1e-12), 0, 1)
        assert np.hypot(*(start + share[:, None] * along).T).min() < 0.4 * 2**3 * 1.5
    counts = [len(lines("coasts", level).points) for level in range(LEVELS)]
    assert counts == sorted(counts, reverse=True)
    assert [level_for(km) for km in (0.1, 0.4, 0.79, 0.81, 1e9)] == [0, 0, 0, 1, LEVELS - 1]


def test_scale_bars_are_round_and_texts_short(knmi: Grid) -> None:
    assert scale_bar(Place(knmi), 175)[0] == 100
    assert [degree_text(v, "EW") for v in (5, -0.5, 0, 180, 181, 360)] == [
        "5°E", "0.5°W", "0°", "180°", "179°W", "0°",
    ]  # fmt: skip
    assert [degree_text(v, "NS") for v in (52, -7.5, 0)] == ["52°N", "7.5°S", "0°"]


def test_what_is_shipped_is_small_and_says_where_it_is_from() -> None:
    folder = files("stpl_core.maps")
    assert len(folder.joinpath("natural-earth.npz").read_bytes()) < 1_500_000
    assert "public domain" in folder.joinpath("natural-earth.md").read_text()
    assert not [city.name for city in cities() if "?" in city.name]


def test_nothing_to_draw_where_there_is_nothing() -> None:
    empty = Lines(np.zeros((0, 2)), np.zeros(0, np.int32))
    pacific = grid_of("OGC:CRS84", (-140.0, 5.0, 0.01, -0.01), 200, 200)
    assert Place(pacific).lines(empty) == []
    assert not map_lines(pacific).layers["coasts"]
