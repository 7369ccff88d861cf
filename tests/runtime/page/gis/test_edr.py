"""OGC API - EDR: values at a position and in an area, by OWSLib's client and by hand."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("fastapi", "uvicorn", "pyproj"):  # an edge device may have none of them
    pytest.importorskip(library)

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pyproj

from stpl_core.bundle import Bundle
from stpl_core.grid import Grid
from stpl_runtime.engine import Session
from tests.runtime.page.gis.grids import (
    COLUMN,
    HEIGHT,
    PLACES,
    ROW,
    UNSEEN,
    WIDTH,
    grid_of,
    nowcast_on,
    with_chances,
)
from tests.runtime.page.serving import Served, serve

GRID = grid_of("polar stereographic, as of KNMI")
PLACE = pyproj.Transformer.from_crs(GRID.crs_wkt, "OGC:CRS84", always_xy=True).transform(
    GRID.x[COLUMN] + 300.0, GRID.y[ROW] - 400.0
)
POINT = f"POINT({PLACE[0]} {PLACE[1]})"


@pytest.fixture
def shown(page: Served) -> Served:
    frames = np.random.default_rng(4).random((3, 1, GRID.height, GRID.width), np.float32)
    page.hub.views[""].nowcast(with_chances(nowcast_on(GRID, frames=frames)))
    return page


def degrees(grid: Grid, x: float, y: float) -> tuple[float, float]:
    """By PROJ alone."""
    onto = pyproj.Transformer.from_crs(grid.crs_wkt, "OGC:CRS84", always_xy=True)
    lon, lat = onto.transform(x, y)
    return float(lon), float(lat)


def polygon(ring: list[tuple[float, float]], *holes: list[tuple[float, float]]) -> str:
    """As WKT; each ring is closed."""
    texts = [",".join(f"{x!r} {y!r}" for x, y in [*one, one[0]]) for one in (ring, *holes)]
    return f"POLYGON(({'),('.join(texts)}))"


def get(page: Served, path: str, expected: int = 200) -> Any:
    status, headers, body = page.get(f"/edr{path}")
    assert status == expected, body
    assert "json" in headers["content-type"]
    return json.loads(body)


def test_owslib_reads_a_position(shown: Served) -> None:
    edr = pytest.importorskip("owslib.ogcapi.edr")
    service = edr.EnvironmentalDataRetrieval(f"http://127.0.0.1:{shown.port}/edr")
    assert service.conformance()["conformsTo"]
    assert service.data() == ["nowcast"]
    about = service.collection("nowcast")
    west, south, east, north = about["extent"]["spatial"]["bbox"][0]
    assert west < PLACE[0] < east
    assert south < PLACE[1] < north
    assert about["description"] == "issued 2026-01-31T23:50:00Z"
    assert "/collections/{name}/position" in service.api()["paths"]
    found = service.query_data(
        "nowcast", "position", coords=POINT, parameter_names=["nowcast", "observed"]
    )
    nowcast = shown.hub.views[""].latest
    assert nowcast is not None
    assert found["type"] == "Coverage"
    axes = found["domain"]["axes"]
    assert axes["t"]["values"][0] == "2026-01-31T23:35:00Z"
    assert len(axes["t"]["values"]) == 7
    onto = pyproj.Transformer.from_crs("OGC:CRS84", GRID.crs_wkt, always_xy=True)
    middle = onto.transform(axes["x"]["values"][0], axes["y"]["values"][0])
    assert middle == pytest.approx((GRID.x[COLUMN], GRID.y[ROW]), abs=0.2)
    assert list(found["ranges"]) == ["nowcast", "observed"]
    forecast = found["ranges"]["nowcast"]["values"]
    assert forecast[:4] == [None] * 4
    assert [np.float32(value) for value in forecast[4:]] == list(nowcast.frames[:, 0, ROW, COLUMN])
    assert found["ranges"]["observed"]["values"] == [3.0] * 4 + [None] * 3


def test_times_and_parameters(shown: Served) -> None:
    at = f"/collections/nowcast/position?coords={quote(POINT)}"
    for when, count in [
        ("2026-01-31T23:50:00Z", 1),
        ("2026-01-31T23:50:00Z/..", 4),
        ("../2026-01-31T23:50:00Z", 4),
        ("2026-01-31T23:51:00Z/2026-02-01T00:00:00Z", 2),
    ]:
        found = get(shown, f"{at}&datetime={when}")
        assert found["ranges"]["nowcast"]["shape"] == [count], when
    chance = get(shown, f"{at}&parameter-name=probability_of_exceedance_5")
    values = chance["ranges"]["probability_of_exceedance_5"]["values"]
    assert values[4:] == [0.3, 0.3, 0.3]
    assert chance["parameters"]["probability_of_exceedance_5"]["unit"]["symbol"] == "1"
    unseen = pyproj.Transformer.from_crs(GRID.crs_wkt, "OGC:CRS84", always_xy=True)
    lon, lat = unseen.transform(GRID.x[0], GRID.y[0])
    nothing = get(shown, f"/collections/nowcast/position?coords=POINT({lon}%20{lat})")
    assert set(nothing["ranges"]["nowcast"]["values"]) == {None}


AREAS = {
    "a triangle": lambda w, s, e, n: ([(w, s), (e, s), (e, n)],),
    "with a hole": lambda w, s, e, n: (
        [(w - 1, s - 1), (e + 1, s - 1), (e + 1, n + 1), (w - 1, n + 1)],
        [(w, s), (e, s), ((w + e) / 2, n)],
    ),
    "not convex": lambda w, s, e, n: (
        [(w, s), (e, s), (e, n), ((w + e) / 2, s + 0.2 * (n - s)), (w, n)],
    ),
}
"""By the box of the inner half of a frame."""


@pytest.mark.parametrize("shape", AREAS)
@pytest.mark.parametrize("name", [one for one in PLACES if one != "about the pole"])
def test_an_area_is_the_pixels_whose_middles_lie_within(
    page: Served, name: str, shape: str
) -> None:
    """By matplotlib's point in polygon, and PROJ."""
    paths = pytest.importorskip("matplotlib.path")
    grid = grid_of(name)
    frames = np.random.default_rng(7).random((3, 1, HEIGHT, WIDTH), np.float32)
    page.hub.views[""].nowcast(with_chances(nowcast_on(grid, frames=frames)))
    onto = pyproj.Transformer.from_crs(grid.crs_wkt, "OGC:CRS84", always_xy=True)
    middles = np.stack(onto.transform(*np.meshgrid(grid.x, grid.y)), axis=-1)  # (H, W, 2)
    if name == "degrees east of 180":
        middles[..., 0] %= 360.0
    inner = middles[5:15, 8:22]
    # A bit more, so that no middle lies on an outline.
    edge = 0.013 * np.ptp(inner, axis=(0, 1))
    west, south = inner.min(axis=(0, 1)) - edge
    east, north = inner.max(axis=(0, 1)) + edge * (1.7, 2.9)
    rings = AREAS[shape](*map(float, (west, south, east, north)))
    inside = np.zeros(HEIGHT * WIDTH, bool)
    for ring in rings:
        inside ^= paths.Path([*ring, ring[0]]).contains_points(middles.reshape(-1, 2))
    assert 20 < inside.sum() < HEIGHT * WIDTH
    found = get(page, f"/collections/nowcast/area?coords={quote(polygon(*rings))}")
    assert found["domain"]["domainType"] == "MultiPointSeries"
    places = np.array(found["domain"]["axes"]["composite"]["values"])
    expected = middles.reshape(-1, 2)[inside]
    assert places.shape == expected.shape
    off = np.abs(places - expected)
    assert np.minimum(off, np.abs(off - 360.0)).max() < 1e-5
    forecast = found["ranges"]["nowcast"]
    assert forecast["axisNames"] == ["t", "composite"]
    assert forecast["shape"] == [7, inside.sum()]
    values = np.array(forecast["values"], object).reshape(forecast["shape"])
    seen = np.flatnonzero(inside) % WIDTH >= UNSEEN
    for lead in range(3):
        at_lead = frames[lead, 0].ravel()[inside]
        assert [np.float32(one) for one in values[4 + lead, seen]] == at_lead[seen].tolist()
    assert set(values[4:, ~seen].ravel()) <= {None}
    assert set(values[:4].ravel()) == {None}


def test_it_is_coverage_json(shown: Served) -> None:
    """By the models of KNMI, to which nothing may be added."""
    coverage = pytest.importorskip("covjson_pydantic.coverage")
    area = "POLYGON((4 50,6 50,6 54,4 54,4 50))"
    for query, coords in (("position", POINT), ("area", area)):
        path = f"/edr/collections/nowcast/{query}?coords={quote(coords)}"
        read = coverage.Coverage.model_validate_json(shown.get(path)[2], strict=True)
        assert list(read.ranges) == list(read.parameters)
        assert None in read.ranges["nowcast"].values


def test_owslib_reads_an_area(shown: Served) -> None:
    edr = pytest.importorskip("owslib.ogcapi.edr")
    service = edr.EnvironmentalDataRetrieval(f"http://127.0.0.1:{shown.port}/edr")
    about = service.collection("nowcast")
    assert list(about["data_queries"]) == ["position", "area"]
    assert about["data_queries"]["area"]["link"]["href"].endswith("/collections/nowcast/area")
    assert "/collections/{name}/area" in service.api()["paths"]
    x, y = GRID.x[COLUMN], GRID.y[ROW]
    side = 1.4 * GRID.affine[2]
    corners = [degrees(GRID, x + dx * side, y + dy * side)
               for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]  # fmt: skip
    found = service.query_data(
        "nowcast", "area", coords=polygon(corners), parameter_names=["nowcast"],
        datetime_="2026-01-31T23:55:00Z",
    )  # fmt: skip
    nowcast = shown.hub.views[""].latest
    assert nowcast is not None
    block = nowcast.frames[0, 0, ROW - 1 : ROW + 2, COLUMN - 1 : COLUMN + 2]
    assert [np.float32(one) for one in found["ranges"]["nowcast"]["values"]] == (
        block.ravel().tolist()
    )
    two = polygon(corners).replace("POLYGON(", "MULTIPOLYGON((") + ")"
    again = get(shown, f"/collections/nowcast/area?coords={quote(two)}&parameter-name=nowcast")
    assert again["ranges"]["nowcast"]["shape"] == [7, 9]


def test_an_area_has_limits(shown: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from stpl_runtime.page.gis import areas, edr

    corners = [(-170.0, -80.0), (170.0, -80.0), (170.0, 85.0), (-170.0, 85.0)]
    world = f"/collections/nowcast/area?coords={quote(polygon(corners))}"
    all_of_it = get(shown, world)
    assert all_of_it["ranges"]["nowcast"]["shape"] == [7, HEIGHT * WIDTH]
    monkeypatch.setattr(edr, "MOST_VALUES", 4 * 7 * HEIGHT * WIDTH - 1)
    assert "16,800 values" in get(shown, world, 413)["description"]
    get(shown, f"{world}&parameter-name=nowcast")
    get(shown, f"{world}&datetime=2026-01-31T23:55:00Z")
    monkeypatch.setattr(areas, "MOST_PIXELS", 10)
    assert "/nowcast/latest?format=nc" in get(shown, world, 413)["description"]
    monkeypatch.undo()
    monkeypatch.setattr(areas, "_MOST_CROSSINGS", 2 * HEIGHT * WIDTH - 1)
    assert "to and fro" in get(shown, world, 413)["description"]


@pytest.mark.parametrize(
    ("coords", "status", "text"),
    [
        ("", 400, "such as POLYGON"),
        ("POINT(5 52)", 400, "such as POLYGON"),
        ("POLYGON((5 52,6 52,6 53,5 52)", 400, "such as POLYGON"),
        ("POLYGON(5 52,6 52,6 53,5 52)", 400, "such as POLYGON"),
        ("POLYGON(((5 52,6 52,6 53,5 52)))", 400, "such as POLYGON"),
        ("POLYGON((5 52,6 52,6 53))", 400, "the first one again"),
        ("POLYGON((5 52,6 52,5 52))", 400, "three places"),
        ("POLYGON(())", 400, "is no longitude"),
        ("POLYGON((5 52,6 52,6 530,5 52))", 400, "is no longitude"),
        ("POLYGON((5 52,6 52,nan 53,5 52))", 400, "'nan 53' is no longitude"),
        ("POLYGON Z((5 52 1,6 52 1,6 53 1,5 52 1))", 400, "such as POLYGON"),
        ("POLYGON((-200 52,200 52,200 53,-200 52))", 400, "360 degrees"),
        ("POLYGON((" + "(" * 500, 400, "such as POLYGON"),
        ("POLYGON(" + "(1 1)," * 100, 400, "such as POLYGON"),
        ("POLYGON((100 0,101 0,101 1,100 0))", 404, "lies beside the frames"),
        ("POLYGON((5 52,5.0001 52,5.0001 52.0001,5 52))", 404, "which is small"),
        ("POLYGON((5 52,5 52,5 52,5 52))", 404, "which is small"),
    ],
)  # fmt: skip
def test_an_area_that_does_not_hold_is_refused(
    shown: Served, coords: str, status: int, text: str
) -> None:
    found = get(shown, f"/collections/nowcast/area?coords={quote(coords)}", status)
    assert found["code"] == str(status)
    assert text in found["description"]
    assert len(found["description"]) < 300


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/collections/none", 404),
        ("/collections/none/position?coords=POINT(5%2052)", 404),
        ("/collections/nowcast/position", 400),
        ("/collections/nowcast/position?coords=POINT(5)", 400),
        ("/collections/nowcast/position?coords=POINT(nan%20nan)", 400),
        ("/collections/nowcast/position?coords=POINT(5%2091)", 400),
        ("/collections/nowcast/position?coords=POINT(9999%2052)", 400),
        ("/collections/nowcast/position?coords=POINT%20Z(5%2052%201)", 400),
        ("/collections/nowcast/position?coords=POLYGON((1%201,2%202,3%203))", 400),
        ("/collections/nowcast/position?coords=POINT(-100%200)", 404),
        (f"/collections/nowcast/position?coords={quote(POINT)}&crs=EPSG:28992", 400),
        (f"/collections/nowcast/position?coords={quote(POINT)}&f=GeoJSON", 400),
        (f"/collections/nowcast/position?coords={quote(POINT)}&z=500", 400),
        (f"/collections/nowcast/position?coords={quote(POINT)}&datetime=soon", 400),
        (f"/collections/nowcast/position?coords={quote(POINT)}&datetime=2030-01-01", 400),
        (f"/collections/nowcast/position?coords={quote(POINT)}&parameter-name=a%00b", 400),
    ],
)
def test_what_does_not_hold_is_refused(shown: Served, path: str, status: int) -> None:
    found = get(shown, path, status)
    assert found["code"] == str(status)
    assert found["description"].isprintable()


def test_it_lives(page: Served) -> None:
    view = page.hub.views[""]
    view.nowcast(nowcast_on(GRID))
    first = page.get("/edr/collections")
    assert page.get("/edr/collections", {"If-None-Match": first[1]["etag"]})[0] == 304
    view.nowcast(nowcast_on(GRID, later=2))
    now = page.get("/edr/collections", {"If-None-Match": first[1]["etag"]})
    assert now[0] == 200
    (about,) = json.loads(now[2])["collections"]
    assert about["description"] == "issued 2026-02-01T00:00:00Z"


@pytest.fixture
def guarded(bundle: Bundle, session: Session) -> Iterator[Served]:
    with serve(bundle, session, ("north",), token="a-token-of-some-length") as page:
        page.hub.views["north"].nowcast(nowcast_on(GRID, stream="north"))
        yield page


def test_a_token_stays_in_the_links(guarded: Served) -> None:
    found = get(guarded, "/?token=a-token-of-some-length")
    (data,) = (link["href"] for link in found["links"] if link["rel"] == "data")
    assert data.endswith("/edr/collections?token=a-token-of-some-length")
    status, _, body = guarded.get(data.removeprefix(f"http://127.0.0.1:{guarded.port}"))
    assert status == 200
    assert json.loads(body)["collections"][0]["id"] == "north"
