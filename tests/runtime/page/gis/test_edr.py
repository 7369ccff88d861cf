"""OGC API - EDR: the values at a position, by OWSLib's client and by hand."""

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
from stpl_runtime.engine import Session
from tests.runtime.page.gis.grids import (
    COLUMN,
    ROW,
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
