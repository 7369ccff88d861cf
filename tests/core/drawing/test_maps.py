"""The map over a picture: coasts, cities and a scale bar where the projection says."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

pyproj = pytest.importorskip("pyproj")

from stpl_core.drawing import maps  # noqa: E402
from stpl_core.drawing.maps import plain_letters, with_map  # noqa: E402
from stpl_core.grid import Grid, pixel_grid  # noqa: E402
from stpl_core.maps.lines import map_lines  # noqa: E402
from stpl_core.maps.placing import Place  # noqa: E402

HOLLAND = Grid(
    (0.0, -3649982.0, 1000.0, -1000.0),
    765,
    700,
    pyproj.CRS("+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378140 +b=6356750").to_wkt(),
)
WHITE = (255, 255, 255)


def drawn(width: int, height: int, shrunk: float = 1.0) -> np.ndarray:
    """`(height, width, 3)`, on white."""
    image = with_map(Image.new("RGB", (width, height), WHITE), HOLLAND, shrunk)
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("factor", [0.5, 1, 2])
def test_coasts_and_cities_are_where_they_are(factor: float) -> None:
    picture = drawn(round(700 * factor), round(765 * factor))
    place = Place(HOLLAND)
    (coast,) = place.pixels(np.array([[1.4436, 51.1513]])) * factor  # South Foreland, Dover
    x, y = coast.astype(int)
    reach = round(4 * factor) + 2
    assert picture[y - reach : y + reach, x - reach : x + reach].max(axis=2).min() < 60
    spot = next(city for city in map_lines(HOLLAND).cities if city.name == "Amsterdam")
    dot = picture[round(spot.y * factor), round(spot.x * factor)]
    assert dot.max() < 60
    sea = (place.pixels(np.array([[3.13, 54.2]]))[0] * factor).astype(int)
    assert (picture[sea[1], sea[0]] == 255).all()


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    picture = drawn(700, 765)
    length = 580 + np.flatnonzero(picture[765 - 6, 580:].max(axis=1) < 60)
    assert map_lines(HOLLAND).bar_km == 100
    assert length[-1] - length[0] == pytest.approx(map_lines(HOLLAND).bar, abs=2)
    ends = Place(HOLLAND).degrees(np.array([[350.0, 382.5], [350 + map_lines(HOLLAND).bar, 382.5]]))
    *_, metres = pyproj.Geod(ellps="WGS84").inv(*ends[0], *ends[1])
    assert metres == pytest.approx(100_000, rel=0.02)


def test_small_pictures_have_lines_alone_and_shrunk_ones_large_letters() -> None:
    small = drawn(96, 105)
    assert (small.max(axis=2) < 60).any()
    assert (small[-6, -30:].max(axis=1) < 60).sum() < 8  # no scale bar
    plain, large = drawn(320, 350), drawn(320, 350, 2.0)
    assert (large.max(axis=2) < 60).sum() > 1.2 * (plain.max(axis=2) < 60).sum()


def test_without_a_place_or_pyproj_a_picture_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = Image.new("RGB", (300, 300), WHITE)
    assert with_map(image, None) is image
    assert with_map(image, pixel_grid(30, 30)) is image
    maps._map_picture.cache_clear()
    map_lines.cache_clear()
    monkeypatch.setattr("stpl_core.maps.lines.place_of", Place)
    monkeypatch.setitem(sys.modules, "pyproj", None)
    assert with_map(image, HOLLAND) is image


def test_names_in_the_letters_that_there_are() -> None:
    names = ["København", "São Paulo", "Łódź", "Reykjavík"]
    assert [plain_letters(name) for name in names] == [
        "Kobenhavn", "Sao Paulo", "Lodz", "Reykjavik",
    ]  # fmt: skip
