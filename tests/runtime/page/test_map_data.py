"""What the page's map is made of, through real requests: lines, points and palettes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pyproj = pytest.importorskip("pyproj")

from stpl_core.bundle import Bundle  # noqa: E402
from stpl_core.errors import UsageError  # noqa: E402
from stpl_core.grid import Grid  # noqa: E402
from stpl_runtime.engine import Session  # noqa: E402
from stpl_runtime.page.maps import Maps  # noqa: E402
from stpl_runtime.page.points import point_of_nowcast  # noqa: E402
from stpl_runtime.page.watch import Watch, WatchOptions  # noqa: E402
from tests.runtime.conftest import make_frame, picture  # noqa: E402
from tests.runtime.page.serving import Served, serve  # noqa: E402

GRID = Grid((3.0, 54.0, 0.25, -0.25), 16, 16, pyproj.CRS("OGC:CRS84").to_wkt(), True)


@pytest.fixture(scope="module")
def served(bundle: Bundle, session: Session) -> Iterator[Served]:
    with serve(bundle, session) as page:
        hole = np.ones((16, 16), bool)
        hole[2, 3] = False
        for slot in range(6):
            page.taps[0].give(replace(make_frame(slot), grid=GRID, mask=hole))
        page.settle(3)
        yield page


@pytest.fixture
def facts(served: Served) -> Any:
    with served.events() as sent:
        return sent.until("stream", lambda f: f["nowcast"] and len(f["slots"]) == 6)


def test_the_map_in_pixels(served: Served, facts: Any) -> None:
    for detail in ("overview", "detail"):
        status, headers, body = served.get(f"/{facts['map']['url']}{detail}")
        assert (status, headers["content-type"]) == (200, "application/json")
        assert "immutable" in headers["cache-control"]
        found = json.loads(body)
        assert set(found["layers"]) == {"coasts", "borders", "lakes", "rivers"}
        assert found["layers"]["coasts"]
    overview = json.loads(served.get(f"/{facts['map']['url']}overview")[2])
    assert ["Amsterdam", 7.66, 6.59] in overview["cities"]
    assert overview["pixel_km"] == pytest.approx(0.25 * 111.2 * np.cos(np.radians(52)), rel=0.01)
    assert served.get(f"/{facts['map']['url']}closer")[0] == 404
    assert served.get("/map/0123456789ab/overview")[0] == 404


def test_a_point_through_time(served: Served, facts: Any) -> None:
    nowcast = served.hub.views[""].latest
    assert nowcast is not None
    root = f"/{facts['points']}{facts['nowcast']['key']}/"
    found = json.loads(served.get(f"{root}5/7")[2])
    assert (found["x"], found["y"]) == (5, 7)
    assert (found["lon"], found["lat"]) == (4.375, 52.125)
    assert [frame["step"] for frame in found["frames"]] == [-3, -2, -1, 0, 1, 2, 3]
    values = [np.float32(frame["values"][0]) for frame in found["frames"]]
    assert values[:4] == [picture(slot)[0, 7, 5] for slot in range(2, 6)]
    assert values[4:] == list(nowcast.frames[:, 0, 7, 5])
    hole = json.loads(served.get(f"{root}3/2")[2])
    assert {frame["values"] for frame in hole["frames"]} == {None}
    for wrong in ("16/0", "0/16", "-1/0", "x/1"):
        assert served.get(f"{root}{wrong}")[0] == 404, wrong
    assert served.get(f"/{facts['points']}gone/1/1")[0] == 404
    before = json.loads(served.get(f"/{facts['points']}observed/5/7")[2])
    assert before["frames"][-1]["values"] == [pytest.approx(picture(5)[0, 7, 5], rel=1e-6)]


def test_palettes_have_addresses(served: Served, facts: Any) -> None:
    url = f"/{facts['nowcast']['ahead'][0]['url']}"
    assert served.get(f"{url}?colours=standard")[2] == served.get(url)[2]
    status, _, body = served.get(f"{url}?colours=usa")  # of grey levels there is one
    assert (status, body) == (400, b"colours: expected one of standard\n")


def test_without_a_place_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "do not say where" in Maps().facts(None, "")["why"]
    assert "do not say where" in Maps().facts(replace(GRID, crs_wkt=""), "")["why"]
    maps = Maps()
    key = maps.facts(GRID, "map/")["url"].split("/")[1]
    for n in range(9):
        maps.facts(replace(GRID, affine=(float(n), 54.0, 0.25, -0.25)), "map/")
    assert maps.json(key, "overview") is None  # of so many grids the oldest is let go


def test_a_point_outside_and_of_several_channels(served: Served) -> None:
    nowcast = served.hub.views[""].latest
    assert nowcast is not None
    colour = replace(
        nowcast,
        frames=np.repeat(nowcast.frames, 3, axis=1),
        context=np.repeat(nowcast.context, 3, axis=1),
        grid=None,
    )
    found = point_of_nowcast(colour, 1, 2)
    assert found is not None
    assert found["lon"] is None
    assert len(found["frames"][0]["values"]) == 3
    assert point_of_nowcast(colour, 1, 16) is None


def test_an_overlay_is_read_before_anything_runs(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match=r"none.geojson cannot be read"):
        Watch(WatchOptions(page=True, port=0, overlays=(tmp_path / "none.geojson",)))
