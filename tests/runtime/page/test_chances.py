"""The chances on the page, in Chromium: pictures, legend, percent, keyboard, a link to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("pyproj")  # of test_map

from stpl_core.bundle import Bundle
from stpl_core.drawing.colours import chance_map
from stpl_runtime.chances import Chances
from stpl_runtime.engine import Session
from stpl_runtime.nowcast import Nowcast
from tests.runtime.page.browsing import K, Watched, needs_chromium, sync_api
from tests.runtime.page.serving import Served, pixels, serve
from tests.runtime.page.test_map import AXE, in_rain, spot

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium

THRESHOLDS = (0.1, 1.0)


@pytest.fixture(scope="module")
def served(bundle: Bundle, session: Session) -> Iterator[Served]:
    """Rain whose newest nowcast has chances."""
    with serve(in_rain(bundle), session) as page:
        page.give(0, 7)
        page.settle(5)
        view = page.hub.views[""]
        made = view.latest
        assert made is not None
        draw = np.random.default_rng(0)
        values = draw.random((K, 2, *made.frames.shape[1:]), dtype=np.float32)
        seen = np.ones(made.frames.shape[2:], bool)
        seen[0, :4] = False
        view.nowcast(replace(made, chances=Chances(THRESHOLDS, values), observed=seen))
        yield page


@pytest.fixture
def nowcast(served: Served) -> Nowcast:
    found = served.hub.views[""].latest
    assert found is not None
    return found


@pytest.fixture
def watched(browser: Browser, served: Served) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = Watched(context, served.port).ready()
    found.until("!document.getElementById('shown-row').hidden")
    yield found
    assert found.said == []
    context.close()


def test_the_switch_shows_the_chances_of_a_threshold(watched: Watched, nowcast: Nowcast) -> None:
    options = watched.tab.locator("#shown option").all_inner_texts()
    assert options == [
        "rain rate",
        "chance of 0.1 mm/h or more",
        "chance of 1 mm/h or more",
    ]
    watched.tab.locator("#shown").select_option("1")
    watched.says("#tag", "chance of 1 mm/h or more, +5 min")
    assert nowcast.chances is not None
    values = nowcast.chances.values[0, 1, 0]  # (H, W)
    expected = chance_map().picture(np.where(nowcast.observed, values, np.nan))
    np.testing.assert_array_equal(watched.canvas(), expected)
    watched.says("#legend .unit", "chance of 1 mm/h or more, %")
    ticks = watched.tab.locator("#legend .ticks span").all_inner_texts()
    assert ticks == ["5", "10", "20", "30", "40", "50", "60", "70", "80", "90"]
    watched.tab.keyboard.press("n")  # what was observed has none
    watched.says("#legend .unit", "mm/h")
    watched.says("#tag", "observed now")
    watched.tab.locator("#shown").select_option("")
    watched.tab.keyboard.press("ArrowRight")


def test_percent_under_the_pointer_and_at_a_pinned_pixel(
    watched: Watched, nowcast: Nowcast
) -> None:
    assert nowcast.chances is not None
    watched.tab.locator("#shown").select_option("0.1")
    watched.says("#tag", "chance of 0.1 mm/h or more")
    for x, y in ((5, 3), (12, 14)):
        watched.tab.mouse.move(*spot(watched, x + 0.5, y + 0.5))
        watched.says("#readout", f"column {x}, row {y}")
        shown, _, words = watched.text("#readout").partition("% ")
        assert float(shown) == pytest.approx(100 * nowcast.chances.values[0, 0, 0, y, x], rel=5e-3)
        assert words.startswith("chance of 0.1 mm/h or more · ")
    watched.tab.mouse.move(*spot(watched, 1.5, 0.5))
    watched.says("#readout", "no data chance of")
    watched.tab.mouse.click(*spot(watched, 5.5, 3.5))
    watched.says("#point-table", "chance of 0.1 mm/h or more")
    cells = watched.tab.locator("#point-table tbody tr").all_inner_texts()
    assert len(cells) == K
    for k, text in enumerate(cells):
        chance = float(text.split("\t")[3].rstrip("%"))
        assert chance == pytest.approx(100 * nowcast.chances.values[k, 0, 0, 3, 5], rel=5e-3)
    watched.tab.locator("#shown").select_option("")
    watched.until("document.querySelectorAll('#point-table thead th').length === 3")


def test_by_keyboard_with_words_for_a_screen_reader_and_a_link(
    watched: Watched, browser: Browser, served: Served
) -> None:
    watched.tab.focus("#shown")
    watched.tab.keyboard.press("ArrowDown")
    watched.tab.keyboard.press("Enter")
    watched.says("#tag", "chance of 0.1 mm/h or more, +5 min")
    words = "document.getElementById('picture').getAttribute('aria-label')"
    watched.until(f"{words}.startsWith('chance of 0.1 mm/h or more, +5 min')")
    text = watched.tab.locator("#time").get_attribute("aria-valuetext")
    assert text is not None
    assert text.startswith("chance of 0.1 mm/h or more, +5 min")
    watched.until("location.hash.includes('chance=0.1')")
    context = browser.new_context(viewport={"width": 400, "height": 900})
    other = Watched(context, served.port)
    other.tab.goto(watched.tab.url)
    other.tab.reload()
    other.ready()
    other.says("#tag", "chance of 0.1 mm/h or more, +5 min")
    assert other.tab.locator("#shown").input_value() == "0.1"
    assert other.said == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_axe_finds_nothing_serious(
    browser: Browser, served: Served, width: int, scheme: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    watched = Watched(context, served.port).ready()
    watched.tab.locator("#shown").select_option("1")
    watched.says("#legend .unit", "chance of 1 mm/h or more, %")
    watched.tab.mouse.click(*spot(watched, 8.5, 8.5))
    watched.says("#point-table", "%")
    watched.tab.evaluate(AXE)
    found = watched.tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    worst = [one["id"] for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert worst == []
    assert watched.tab.evaluate("document.documentElement.scrollWidth") <= width
    row = watched.tab.locator("#shown-row")
    sync_api.expect(row).to_be_visible()
    box = row.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= width
    assert watched.said == []
    context.close()


def test_addresses_of_chances(served: Served) -> None:
    view = served.hub.views[""]
    facts = view.facts("")["nowcast"]
    assert facts["thresholds"] == [0.1, 1.0]
    address = facts["ahead"][1]["chances"][1]
    png = view.png(address)
    assert png is not None
    assert pixels(png).shape == (16, 16, 3)
    key = facts["key"]
    for wrong in (f"chance/{key}/0/0", f"chance/{key}/4/0", f"chance/{key}/1/2", "chance/no/1/0"):
        assert view.png(f"{wrong}.png") is None


def test_without_chances_there_is_no_switch(
    browser: Browser, bundle: Bundle, session: Session
) -> None:
    with serve(in_rain(bundle), session) as page:
        page.give(0, 4)
        page.settle(2)
        context = browser.new_context(viewport={"width": 400, "height": 900})
        watched = Watched(context, page.port)
        watched.tab.goto(f"http://127.0.0.1:{page.port}/#chance=1")
        watched.tab.reload()
        watched.ready()
        assert watched.tab.locator("#shown-row").is_hidden()
        watched.tab.keyboard.press("ArrowRight")
        watched.says("#tag", "forecast +5 min")
        assert watched.said == []
        context.close()
