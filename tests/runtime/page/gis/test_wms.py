"""The WMS through real requests: what it lists and what it draws."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("fastapi", "uvicorn", "pyproj"):  # an edge device may have none of them
    pytest.importorskip(library)

import base64
import io
import json
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from stpl_core.bundle import Bundle
from stpl_core.drawing.colours import chance_map, colour_map, palettes
from stpl_runtime.engine import Session
from tests.runtime.page.gis.asking import GRID, MAP, WMS, ask, capabilities, picture, refusal
from tests.runtime.page.gis.grids import BRIGHT, COLUMN, HEIGHT, RAIN, ROW, WIDTH, nowcast_on
from tests.runtime.page.gis.schemas import check
from tests.runtime.page.serving import Served, serve


def test_owslib_reads_what_there_is(shown: Served) -> None:
    owslib = pytest.importorskip("owslib.wms")
    service = owslib.WebMapService(f"http://127.0.0.1:{shown.port}/wms", version="1.3.0")
    assert list(service.contents) == [
        "nowcast", "observed", "probability_of_exceedance_0.5", "probability_of_exceedance_5",
    ]  # fmt: skip
    layer = service["nowcast"]
    assert layer.boundingBoxWGS84 == pytest.approx(GRID.corners)
    assert layer.timepositions == [
        "2026-01-31T23:55:00Z", "2026-02-01T00:00:00Z", "2026-02-01T00:05:00Z",
    ]  # fmt: skip
    assert layer.defaulttimeposition == "2026-01-31T23:55:00Z"
    assert service["observed"].defaulttimeposition == "2026-01-31T23:50:00Z"
    assert len(service["observed"].timepositions) == 4
    assert list(layer.styles) == list(palettes("mm h-1"))
    assert "issued 2026-01-31T23:50:00Z" in layer.abstract
    assert [one.name for one in service.operations] == [
        "GetCapabilities", "GetMap", "GetFeatureInfo",
    ]  # fmt: skip
    legend = layer.styles["standard"]["legend"]
    status, headers, body = shown.get(legend.removeprefix(f"http://127.0.0.1:{shown.port}"))
    assert (status, headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(body)).size == (
        int(layer.styles["standard"]["legend_width"]),
        int(layer.styles["standard"]["legend_height"]),
    )


def test_the_parts_stand_in_the_order_of_the_standard(shown: Served) -> None:
    root = capabilities(shown)
    assert root.get("version") == "1.3.0"
    assert [one.tag for one in root] == [f"{WMS}Service", f"{WMS}Capability"]
    service, capability = root
    assert [one.tag.removeprefix(WMS) for one in service] == [
        "Name", "Title", "Abstract", "OnlineResource", "Fees", "AccessConstraints", "LayerLimit",
        "MaxWidth", "MaxHeight",
    ]  # fmt: skip
    assert [one.tag.removeprefix(WMS) for one in capability] == ["Request", "Exception", "Layer"]
    order = ["Name", "Title", "Abstract", "CRS", "EX_GeographicBoundingBox", "BoundingBox",
             "Dimension", "Attribution", "Style"]  # fmt: skip
    for layer in capability[2].findall(f"{WMS}Layer"):
        places = [order.index(one.tag.removeprefix(WMS)) for one in layer]
        assert places == sorted(places)


def test_the_schemas_hold(shown: Served) -> None:
    for name, query in (("capabilities", "service=WMS&request=GetCapabilities"),
                        ("exceptions", "request=GetMap&version=1.3.0")):  # fmt: skip
        check(shown.get(f"/wms?{query}")[2], f"wms/1.3.0/{name}_1_3_0.xsd")


def test_each_pixel_has_the_colour_of_its_value(shown: Served) -> None:
    nowcast = shown.hub.views[""].latest
    assert nowcast is not None
    for style in ("", *palettes("mm h-1")):
        for lead in (1, 2, 3):
            found = picture(shown, styles=style, lead=lead)
            values = nowcast.frames[lead - 1, 0]
            colours = colour_map("mm h-1", 0.0, 100.0, style or "standard")
            expected = colours.picture(values)
            wet = nowcast.observed & (values >= 0.1)
            assert (found[wet, :3] == expected[wet]).all(), (style, lead)
            assert (found[wet, 3] == 255).all()
            assert (found[~nowcast.observed] == 0).all(), "nothing was observed: nothing is drawn"
            assert (found[nowcast.observed & (values < 0.1)] == (255, 255, 255, 64)).all()
    opaque = picture(shown, transparent="FALSE", bgcolor="0x010203", bbox="0,0,180,90")
    assert opaque.shape == (HEIGHT, WIDTH, 3)
    assert (opaque[0, 0] == (1, 2, 3)).all()
    chances = picture(shown, layers="probability_of_exceedance_5")
    of_chance = chance_map().picture(np.array([[0.3]], np.float32))[0, 0]
    assert (chances[ROW, COLUMN, :3] == of_chance).all()


def test_times(shown: Served) -> None:
    frames = [picture(shown, lead=lead).tobytes() for lead in (1, 2, 3)]
    assert len(set(frames)) == 2, "3 and 4 mm/h have one colour, 5 mm/h another"
    for time, lead in [
        ("", 1),
        ("current", 1),
        ("2026-01-31T23:55:00Z", 1),
        ("2026-02-01T00:05:00.000Z", 3),
        ("2026-02-01T00:05Z", 3),
        ("2026-02-01T01:05:00+01:00", 3),
        ("2026-02-01T00:01:00Z/2026-02-01T00:09:00Z", 3),
        ("2026-02-01T00:01:00Z/..", 3),
        ("2026-01-31T00:00:00Z/2026-02-01T00:00:00Z/PT5M", 1),
    ]:
        assert picture(shown, time=time).tobytes() == frames[lead - 1], time
    for time in (
        "2026-01-31T23:50:00Z", "2026-01-31T23:57:00Z", "soon", "a/b",
        "2027-01-01T00:00:00Z/2028-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00",
        "2026-02-01T00:05:00Z/2026-01-31T23:55:00Z",
    ):  # fmt: skip
        assert refusal(ask(shown, time=time))[0] == "InvalidDimensionValue", time
    assert picture(shown, layers="observed").any()
    assert picture(shown, layers="observed", lead=-3).any()
    for lead in ("0", "4", "-1", "1.5", "x", "9" * 50):
        assert refusal(ask(shown, lead=lead))[0] == "InvalidDimensionValue", lead
    both = refusal(ask(shown, lead=1, time="2026-01-31T23:55:00Z"))
    assert both == ("InvalidDimensionValue", "TIME and LEAD: expected one of them")


def test_the_value_at_a_place(shown: Served) -> None:
    asked = {"request": "GetFeatureInfo", "query_layers": "nowcast", "lead": 2}
    status, headers, body = ask(shown, **asked, i=COLUMN, j=ROW, info_format="application/json")
    assert (status, headers["content-type"]) == (200, "application/json")
    found = json.loads(body)
    assert found == {
        "layer": "nowcast", "time": "2026-02-01T00:00:00Z", "value": BRIGHT, "units": "mm h-1",
        "x": COLUMN, "y": ROW, "lon": pytest.approx(GRID.x[COLUMN], abs=1e-5),
        "lat": pytest.approx(GRID.y[ROW], abs=1e-5),
    }  # fmt: skip
    status, headers, body = ask(shown, **asked, i=0, j=0, info_format="text/plain")
    assert headers["content-type"].startswith("text/plain")
    assert b"value: None" in body, "nothing was observed there"
    beside = ask(shown, **asked, i=0, j=0, bbox="100,10,110,20", info_format="application/json")
    assert json.loads(beside[2])["value"] is None
    assert refusal(ask(shown, **asked, i=WIDTH, j=0))[0] == "InvalidPoint"


def test_the_largest_picture_is_drawn(shown: Served) -> None:
    """And no picture takes more than so many pixels."""
    found = picture(shown, width=2048, height=2048)
    rows, columns = np.nonzero((found[..., :3] == found[:, :, :3][614, 1467]).all(axis=-1))
    assert found.shape == (2048, 2048, 4)
    assert rows.mean() / 2048 * HEIGHT == pytest.approx(ROW + 0.5, abs=0.05)
    assert columns.mean() / 2048 * WIDTH == pytest.approx(COLUMN + 0.5, abs=0.05)


def test_it_lives(page: Served) -> None:
    """A new nowcast changes times, picture and tag."""
    view = page.hub.views[""]
    view.nowcast(nowcast_on(GRID))
    first = ask(page)
    tag = first[1]["etag"]
    assert first[1]["cache-control"] == "private, no-cache, must-revalidate"
    again = page.get(f"/wms?{urlencode(MAP)}", {"If-None-Match": tag})
    assert (again[0], again[2]) == (304, b"")
    frames = nowcast_on(GRID).frames.copy()
    frames[:, :, ROW, COLUMN] = RAIN
    view.nowcast(nowcast_on(GRID, later=1, frames=frames))
    now = page.get(f"/wms?{urlencode(MAP)}", {"If-None-Match": tag})
    assert now[0] == 200
    assert now[1]["etag"] != tag
    assert now[2] != first[2]
    times = capabilities(page).findall(f".//{WMS}Dimension")
    assert (times[0].text or "").startswith("2026-02-01T00:00:00Z,")
    assert times[0].get("default") == "2026-02-01T00:00:00Z"
    assert refusal(ask(page, time="2026-01-31T23:55:00Z"))[0] == "InvalidDimensionValue"
    assert page.get("/wms", method="POST")[0] == 405


def test_stand_ins_were_not_observed(page: Served) -> None:
    fills = ("", "held", "", "")
    page.hub.views[""].nowcast(nowcast_on(GRID, context_fill=fills))
    (times,) = (
        layer.find(f"{WMS}Dimension")
        for layer in capabilities(page).findall(f".//{WMS}Layer/{WMS}Layer")
        if layer.findtext(f"{WMS}Name") == "observed"
    )
    assert times is not None
    assert (times.text or "").count("Z") == 3
    assert refusal(ask(page, layers="observed", lead=-2))[0] == "InvalidDimensionValue"


def test_several_streams_have_layers_of_their_own(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session, ("north", "south")) as page:
        for name, later in (("north", 0), ("south", 1)):
            page.hub.views[name].nowcast(nowcast_on(GRID, later=later, stream=name))
        names = [one.text for one in capabilities(page).findall(f".//{WMS}Layer/{WMS}Name")]
        assert names == ["north:nowcast", "north:observed", "south:nowcast", "south:observed"]
        assert picture(page, layers="south:nowcast", time="2026-02-01T00:10:00Z").any()


def test_a_token_stays_in_the_addresses(bundle: Bundle, session: Session) -> None:
    token = "a-token-of-some-length&<"
    pair = base64.b64encode(f"gis:{token}".encode()).decode()
    with serve(bundle, session, token=token) as page:
        page.hub.views[""].nowcast(nowcast_on(GRID))
        assert ask(page)[0] == 401
        for path in ("/tiles/nowcast/0/0/0.png", "/edr", "/edr/collections/nowcast"):
            assert page.get(path)[0] == 401
        basic = {"Authorization": f"Basic {pair}"}
        assert page.get(f"/wms?{urlencode(MAP)}", basic)[0] == 200
        wrong = base64.b64encode(f"{token}:".encode()).decode()
        for given in (wrong, "====", "ÿ", token):
            assert page.get("/wms", {"Authorization": f"Basic {given}"})[0] == 401, given
        root = capabilities(page, f"&token={quote(token)}&lead=2")
        assert root.find(f".//{WMS}Dimension") is None, "the address says which frame"
        href = root.find(f".//{WMS}GetMap//{WMS}OnlineResource")
        assert href is not None
        url = href.get("{http://www.w3.org/1999/xlink}href", "")
        assert url.endswith(f"/wms?{urlencode({'token': token, 'lead': 2})}&")
        path = url.removeprefix(f"http://127.0.0.1:{page.port}")
        status, headers, _ = page.get(f"{path}{urlencode(MAP)}")
        assert (status, headers["content-type"]) == (200, "image/png")
        owslib = pytest.importorskip("owslib.wms")
        service = owslib.WebMapService(
            f"http://127.0.0.1:{page.port}/wms", version="1.3.0", username="gis", password=token
        )
        assert "nowcast" in service.contents


def test_addresses_are_those_of_the_one_who_asks(shown: Served) -> None:
    def url(**headers: str) -> str:
        asked = "/wms?service=WMS&request=GetCapabilities"
        root = ElementTree.fromstring(shown.get(asked, headers)[2])
        found = root.find(f".//{WMS}GetMap//{WMS}OnlineResource")
        assert found is not None
        return found.get("{http://www.w3.org/1999/xlink}href", "")

    assert url() == f"http://127.0.0.1:{shown.port}/wms?"
    assert url(Host="localhost:99") == "http://localhost:99/wms?"
    assert url(**{"X-Forwarded-Proto": "https"}) == f"https://127.0.0.1:{shown.port}/wms?"
    assert url(**{"X-Forwarded-Proto": "javascript"}).startswith("http://")


def test_tiles(shown: Served) -> None:
    status, headers, body = shown.get("/tiles/nowcast/0/0/0.png")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(body)).size == (256, 256)
    again = shown.get("/tiles/nowcast/0/0/0.png", {"If-None-Match": headers["etag"]})
    assert again[0] == 304
    assert shown.get("/tiles/nowcast/8/131/83.png?lead=3&style=usa")[0] == 200
    for path, expected in [
        ("/tiles/none/0/0/0.png", 404),
        ("/tiles/nowcast/0/1/0.png", 404),
        ("/tiles/nowcast/25/0/0.png", 404),
        (f"/tiles/nowcast/{'9' * 1000}/0/0.png", 404),
        ("/tiles/nowcast/0/-1/0.png", 404),
        ("/tiles/nowcast/0/0/0.png?lead=9", 400),
        ("/tiles/nowcast/0/0/0.png?style=x", 400),
        ("/tiles/nowcast/0/0/0.png?time=x", 400),
    ]:
        assert shown.get(path)[0] == expected, path
