"""The map on the page, in Chromium: places, values, a point's next hour, choices, a permalink."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pyproj = pytest.importorskip("pyproj")

from stpl_core.bundle import Bundle  # noqa: E402
from stpl_core.drawing.colours import colour_map  # noqa: E402
from stpl_core.grid import Grid  # noqa: E402
from stpl_runtime.engine import Session  # noqa: E402
from stpl_runtime.nowcast import Nowcast  # noqa: E402
from tests.runtime.conftest import make_frame, picture  # noqa: E402
from tests.runtime.page.browsing import K, Watched, needs_chromium, sync_api  # noqa: E402
from tests.runtime.page.serving import Served, serve  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium

CRS = pyproj.CRS("+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378140 +b=6356750")
GRID = Grid((200e3, -4050e3, 20e3, -20e3), 16, 16, CRS.to_wkt())
"""320 km around the Netherlands."""
AREA = {
    "type": "Feature",
    "properties": {"name": "Gale <warning>"},
    "geometry": {
        "type": "Polygon",
        "coordinates": [[[4.5, 51.6], [6.5, 51.6], [6.5, 52.6], [4.5, 52.6], [4.5, 51.6]]],
    },
}
AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text()


def in_rain(bundle: Bundle) -> Bundle:
    """The same model, of rain in mm/h."""
    codec = bundle.manifest.codec.model_copy(update={"units": "mm h-1", "quantity": "rain rate"})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"codec": codec}))


@pytest.fixture(scope="module")
def served(
    bundle: Bundle, session: Session, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Rain over the Netherlands; the second stream does not know where it is."""
    path = tmp_path_factory.mktemp("own") / "areas.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [AREA]}))
    with serve(in_rain(bundle), session, ("radar", "camera"), overlays=(path,)) as page:
        for slot in range(8):
            page.taps[0].give(replace(make_frame(slot), grid=GRID))
        page.give(0, 7, tap=1)
        page.settle(5)
        page.settle(5, 1)
        yield page


@pytest.fixture
def nowcast(served: Served) -> Nowcast:
    found = served.hub.views["radar"].latest
    assert found is not None
    return found


@pytest.fixture
def watched(browser: Browser, served: Served) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, timezone_id="Asia/Tokyo")
    found = Watched(context, served.port).ready()
    found.until("document.querySelector('.leaflet-control-scale-line')?.textContent")
    yield found
    assert found.said == []
    context.close()


def spot(watched: Watched, x: float, y: float) -> tuple[float, float]:
    """Where on the screen a place of the frame is, while the whole frame is shown."""
    box, view = (watched.tab.locator(name).bounding_box() for name in ("#picture", "#map"))
    assert box is not None
    assert view is not None
    assert box["x"] >= view["x"] - 1
    assert box["y"] >= view["y"] - 1
    assert box["y"] + box["height"] <= view["y"] + view["height"] + 1
    return box["x"] + box["width"] * x / 16, box["y"] + box["height"] * y / 16


def degrees_of(x: float, y: float) -> tuple[float, float]:
    onto = pyproj.Transformer.from_crs(CRS, CRS.geodetic_crs, always_xy=True)
    lon, lat = onto.transform(200e3 + 20e3 * x, -4050e3 - 20e3 * y)
    return float(lon), float(lat)


def test_values_under_the_pointer_are_the_frames_to_the_last_digit(
    watched: Watched, nowcast: Nowcast
) -> None:
    for presses, frame in (
        (0, picture(7)[0]),
        (1, nowcast.frames[0, 0]),
        (1, nowcast.frames[1, 0]),
    ):
        for _ in range(presses):
            watched.tab.keyboard.press("ArrowRight")
        for x, y in ((2, 3), (9, 14), (15, 8)):
            watched.tab.mouse.move(*spot(watched, x + 0.4, y + 0.6))
            watched.says("#readout", f"column {x}, row {y}")
            shown = watched.text("#readout")
            assert np.float32(shown.split(" mm/h")[0]) == frame[y, x]
            lon, lat = degrees_of(x + 0.5, y + 0.5)
            assert f"{lat:.4f}° N, {lon:.4f}° E" in shown
    watched.tab.mouse.move(2, 2)
    watched.until("document.getElementById('readout').textContent === ''")


def test_the_next_hour_where_somebody_clicked(watched: Watched, nowcast: Nowcast) -> None:
    watched.tab.mouse.click(*spot(watched, 5.5, 6.5))
    watched.until("!document.getElementById('point').hidden")
    rows = watched.tab.locator("#point-table tbody tr")
    assert rows.count() == K
    for k, text in enumerate(rows.all_inner_texts()):
        time, lead, value = text.split("\t")
        assert time == nowcast.valid_times[k].strftime("%H:%M UTC")
        assert lead == f"+{5 * (k + 1)} min"
        exact = nowcast.frames[k, 0, 6, 5]
        assert float(value.removesuffix(" mm/h")) == float(f"{exact:.4g}")
        whole = rows.nth(k).locator("td").nth(1).get_attribute("title") or ""
        assert np.float32(whole.removesuffix(" mm/h")) == exact
    assert watched.tab.locator("#point-chart rect").count() == 4 + K
    says = watched.text("#point-says")
    wet_now = picture(7)[0, 6, 5] >= 0.1
    wet = nowcast.frames[:, 0, 6, 5] >= 0.1
    assert says.startswith("Rain now" if wet_now else "Rain from" if wet.any() else "Dry")
    watched.tab.locator("#unpin").click()
    assert watched.tab.locator("#point").is_hidden()
    assert watched.tab.evaluate("document.activeElement.id") == "map"


def test_by_keyboard_alone(watched: Watched) -> None:
    watched.tab.focus("#map")
    least = watched.tab.evaluate("document.getElementById('picture').getBoundingClientRect().width")
    watched.tab.keyboard.press("Enter")
    watched.says("#point-head", "° N")
    watched.tab.keyboard.press("+")
    wider = "document.getElementById('picture').getBoundingClientRect().width"
    watched.until(f"{wider} > {1.5 * least}")
    watched.says("#tag", "observed now")
    watched.tab.keyboard.press("ArrowRight")  # moves the map, not the time
    watched.says("#tag", "observed now")
    watched.tab.keyboard.press("Home")
    watched.until(f"Math.abs({wider} - {least}) < 2")
    watched.tab.keyboard.press("+")  # and back while it still zooms
    watched.tab.keyboard.press("Home")
    watched.until("!document.querySelector('.leaflet-zoom-anim')")
    watched.until(f"Math.abs({wider} - {least}) < 2")
    watched.tab.keyboard.press("n")


def test_a_coast_is_drawn_where_it_is(watched: Watched) -> None:
    """Dark ink near Hook of Holland on the canvas of the lines, none on the open North Sea."""
    watched.tab.keyboard.press("ArrowRight")
    ink = """([x, y]) => [...document.querySelectorAll("#map .leaflet-overlay-pane canvas")].some(
      (canvas) => {
        const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
        const part = canvas.getContext("2d").getImageData(
          (x - box.x) * scale - 8, (y - box.y) * scale - 8, 16, 16).data;
        for (let n = 3; n < part.length; n += 4) if (part[n] > 200 && part[n - 3] < 60) return true;
        return false;
      })"""
    onto = pyproj.Transformer.from_crs(CRS.geodetic_crs, CRS, always_xy=True)
    for lon, lat, there in ((4.12, 51.98, True), (3.3, 51.9, False)):
        x, y = onto.transform(lon, lat)
        at = spot(watched, (x - 200e3) / 20e3, (-4050e3 - y) / 20e3)
        assert watched.tab.evaluate(ink, list(at)) == there, (lon, lat)
    watched.said.clear()  # that canvases are read back
    labels = watched.tab.locator("#map .label").all_inner_texts()
    assert {"The Hague", "52°N", "4°E"} <= set(labels)
    assert watched.text(".leaflet-control-scale-line").endswith(" km")
    watched.tab.locator("#settings summary").click()
    for name in ("lines", "graticule"):
        watched.tab.locator(f"#show-{name}").uncheck()
    assert watched.tab.locator("#map .label").count() == 0


def test_own_areas_lie_on_it(watched: Watched) -> None:
    lon, lat = 5.5, 52.1
    x, y = pyproj.Transformer.from_crs(CRS.geodetic_crs, CRS, always_xy=True).transform(lon, lat)
    at = spot(watched, (x - 200e3) / 20e3, (-4050e3 - y) / 20e3)
    for step in (0, 1, 2):  # Leaflet looks at the pointer every 32 ms
        watched.tab.mouse.move(at[0] + step, at[1])
        watched.tab.wait_for_timeout(50)
    watched.says(".leaflet-tooltip", "Gale <warning>")
    watched.says("#readout", "mm/h")
    watched.tab.locator("#settings summary").click()
    watched.tab.locator("#show-overlay").uncheck()
    watched.until("location.hash.includes('hide=overlay')")


def test_colours_for_everybody(watched: Watched) -> None:
    watched.tab.locator("#settings summary").click()
    words = watched.tab.locator("#colours option").evaluate_all("all => all.map((o) => o.value)")
    assert words == ["standard", "cividis", "australia", "belgium", "netherlands", "usa"]
    for word in words[1:]:
        watched.tab.locator("#colours").select_option(word)
        colours = colour_map("mm h-1", 0.0, 1.0, word)
        expected = colours.picture(picture(7)[0])
        expected[picture(7)[0] < colours.limits[0]] = 255
        expected = expected.tolist()
        for _ in range(200):
            if watched.canvas().tolist() == expected:
                break
            watched.tab.wait_for_timeout(25)
        assert watched.canvas().tolist() == expected, word
        assert watched.tab.locator("#legend .boxes i").count() == len(colours.limits)


def test_times_of_this_machine(watched: Watched, nowcast: Nowcast) -> None:
    watched.tab.locator("#settings summary").click()
    watched.tab.locator("#zone").select_option("local")
    assert nowcast.issue_time is not None
    local = (nowcast.issue_time.hour + 9) % 24
    watched.says("#clock", f"{local:02}:{nowcast.issue_time.minute:02} GMT+9")
    watched.tab.locator("#zone").select_option("utc")
    watched.says("#clock", nowcast.issue_time.strftime("%H:%M UTC"))


def test_a_link_to_a_view(watched: Watched, browser: Browser, served: Served) -> None:
    watched.tab.mouse.click(*spot(watched, 9.5, 4.5))
    watched.tab.locator("#settings summary").click()
    watched.tab.locator("#colours").select_option("cividis")
    watched.tab.locator("#zone").select_option("local")
    watched.tab.locator("#opacity").fill("55")
    watched.tab.focus("#map")
    watched.tab.keyboard.press("+")
    watched.until("location.hash.includes('view=')")
    watched.tab.locator("#strip-ahead li").nth(1).click()
    watched.until("['at=2','point=9,4','colours=cividis','opacity=55','time=local']"
                  ".every((part) => location.hash.includes(part))")  # fmt: skip
    watched.until("document.getElementById('permalink').href === location.href")
    where = "document.getElementById('picture').getBoundingClientRect().width"
    width = watched.tab.evaluate(where)
    context = browser.new_context(viewport={"width": 1280, "height": 900}, timezone_id="Asia/Tokyo")
    other = Watched(context, served.port)
    other.tab.goto(watched.tab.url)
    other.tab.reload()
    other.ready()
    other.says("#tag", "forecast +10 min")
    other.says("#clock", "GMT+9")
    other.says("#point-table", "mm/h")
    other.until(f"Math.abs({where} - {width}) < 8")
    assert other.tab.locator("#colours").input_value() == "cividis"
    opacity = "getComputedStyle(document.getElementById('picture')).opacity"
    assert float(other.tab.evaluate(opacity)) == pytest.approx(0.55)
    assert other.said == []
    context.close()


@pytest.mark.parametrize("hash", ["#at=x&view=1,2&point=&opacity=-5", "#point=99,99&colours=no",
                                  "#view=99,1e9,-4&at=77&hide=all"])  # fmt: skip
def test_a_broken_link_is_a_plain_view(browser: Browser, served: Served, hash: str) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800})
    tab = Watched(context, served.port)
    tab.tab.goto(f"http://127.0.0.1:{served.port}/{hash}")
    tab.tab.reload()
    tab.ready()
    tab.until("document.getElementById('picture').getBoundingClientRect().width > 100")
    assert not [line for line in tab.said if "404" not in line]
    context.close()


def test_frames_without_a_place_have_values_and_no_map(watched: Watched) -> None:
    watched.tab.locator("#stream").select_option("camera")
    watched.says("#no-map", "the frames do not say where on the Earth they lie")
    watched.tab.mouse.move(*spot(watched, 3.5, 3.5))
    watched.says("#readout", "column 3, row 3")
    assert "°" not in watched.text("#readout")
    assert watched.tab.locator(".leaflet-control-scale-line").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_axe_finds_nothing_serious(
    browser: Browser, served: Served, width: int, scheme: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    watched = Watched(context, served.port).ready()
    watched.says("#skill-says", "forecasts compared")
    watched.tab.mouse.click(*spot(watched, 8.5, 8.5))
    watched.says("#point-table", "mm/h")
    watched.tab.locator("#settings summary").click()
    watched.tab.evaluate(AXE)
    found = watched.tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    worst = [
        (one["impact"], one["id"], [node["html"][:120] for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert worst == []
    assert len(found["passes"]) > 20
    assert watched.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.said == []
    context.close()


def test_a_finger_scrolls_the_page_over_the_whole_map(browser: Browser, served: Served) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800}, has_touch=True)
    watched = Watched(context, served.port).ready()
    touch = "getComputedStyle(document.getElementById('map')).touchAction"
    sync_api.expect(watched.tab.locator("#map")).to_be_visible()
    watched.until(f"{touch} !== 'none'")
    watched.tab.locator(".leaflet-control-zoom-in").click()
    watched.until(f"{touch} === 'none'")
    context.close()
