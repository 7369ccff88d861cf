"""The page in a real browser: Chromium, where the system has it (CONTRIBUTING.md)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


from stpl_core.bundle import Bundle
from stpl_core.drawing.colours import colour_map
from stpl_runtime.engine import Session
from tests.runtime.conftest import picture
from tests.runtime.page.browsing import K, Watched, needs_chromium, sync_api
from tests.runtime.page.serving import Served, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def served(bundle: Bundle, session: Session) -> Iterator[Served]:
    with serve(bundle, session, ("north", "south")) as page:
        page.give(0, 9)
        page.give(100, 103, tap=1)
        page.settle(7)
        yield page


@pytest.fixture
def watched(browser: Browser, served: Served) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = Watched(context, served.port).ready()
    yield found
    context.close()


def test_the_slider_moves_the_forecast(watched: Watched, served: Served) -> None:
    nowcast = served.hub.views["north"].latest
    assert nowcast is not None
    grey = colour_map("1", 0.0, 1.0)
    watched.says("#tag", "observed now")
    np.testing.assert_array_equal(watched.canvas(), grey.picture(picture(9)[0]))
    watched.tab.focus("#time")
    for k in range(K):
        watched.tab.keyboard.press("ArrowRight")
        watched.says("#tag", f"forecast +{5 * (k + 1)} min")
        value = watched.tab.get_attribute("#time", "aria-valuetext") or ""
        assert value.startswith(f"forecast +{5 * (k + 1)} min, ")
        np.testing.assert_array_equal(watched.canvas(), grey.picture(nowcast.frames[k, 0]))
        watched.says("#check-says", f"+{5 * (k + 1)} min, for")
    watched.tab.keyboard.press("Home")
    watched.says("#tag", "observed -15 min")
    np.testing.assert_array_equal(watched.canvas(), grey.picture(picture(6)[0]))
    watched.tab.locator("#strip-ahead li").nth(1).click()
    watched.says("#tag", "forecast +10 min")
    assert watched.said == []


def test_play_and_pause_by_the_space_bar(watched: Watched) -> None:
    watched.tab.evaluate(
        """() => { window.tags = []; const tag = document.getElementById("tag");
          new MutationObserver(() => window.tags.push(tag.textContent)).observe(
            tag, {childList: true}); }"""
    )
    watched.tab.keyboard.press(" ")
    assert watched.tab.get_attribute("#play", "aria-pressed") == "true"
    watched.until("window.tags.length > 9")
    ahead = [f"forecast +{5 * k} min" for k in range(1, K + 1)]
    past = ["observed -15 min", "observed -10 min", "observed -5 min", "observed now"]
    assert watched.tab.evaluate("window.tags.slice(0, 10)") == [*ahead, *past, *ahead]  # and round
    watched.tab.keyboard.press(" ")
    assert watched.tab.get_attribute("#play", "aria-pressed") == "false"
    watched.tab.keyboard.press("n")
    watched.says("#tag", "observed now")
    watched.tab.keyboard.press("ArrowLeft")
    watched.says("#tag", "observed -5 min")


def test_everything_can_be_reached_by_tab(watched: Watched) -> None:
    reached = []
    for _ in range(24):
        watched.tab.keyboard.press("Tab")
        reached.append(watched.tab.evaluate("document.activeElement.id"))
        if watched.tab.evaluate("document.activeElement === document.body"):
            break  # all round
        ring = watched.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none", reached
    named = [name for name in reached if name]
    assert named[:6] == ["stream", "map", "play", "time", "score", "span"]


def test_no_request_leaves_the_machine(watched: Watched) -> None:
    watched.says("#skill-says", "forecasts compared")
    watched.tab.locator("#score").select_option("mae")
    assert {urlsplit(url).hostname for url in watched.asked} == {"127.0.0.1"}
    assert len(watched.asked) > 10
    assert watched.said == []


def test_facts_are_there(watched: Watched) -> None:
    watched.says("#counts", "10 frames received = 10 used + 0 late")
    watched.says("#nowcasts", "7 made")
    watched.says("#source", "up since")
    watched.says("#slots-says", "Newest 10 slots: 10 observed.")
    watched.says("#latency", "ms")
    assert watched.tab.locator("#chart svg circle.nowcast").count() == K
    watched.tab.locator("#table-of-skill summary").click()
    assert watched.tab.locator("#numbers tbody tr").count() == K
    ticks = watched.tab.locator("#legend .ticks span").all_inner_texts()
    assert ticks == ["0", "0.25", "0.5", "0.75", "1"]


def test_flow_stands_beside_where_it_is_scored(
    browser: Browser, bundle: Bundle, session: Session
) -> None:
    pytest.importorskip("cv2")
    context = browser.new_context(viewport={"width": 400, "height": 900})
    with serve(bundle, session, flow=True) as page:
        page.give(0, 9)
        watched = Watched(context, page.port).ready()
        watched.says("#skill-says", "squared error than flow over all lead times")
        assert watched.tab.locator("#chart svg circle.flow").count() == K
        watched.tab.locator("#table-of-skill summary").click()
        found = page.hub.skill.now("")
        assert found is not None
        watched.until("document.querySelectorAll('#numbers td').length === 12")
        row = watched.tab.locator("#numbers tbody tr").first.inner_text().split("\t")
        expected = found.rolling.per_lead["flow"]["mse"][0]
        assert float(row[3]) == pytest.approx(expected, rel=0.01)
        watched.tab.focus("#time")
        watched.tab.keyboard.press("ArrowRight")
        watched.says("#check-says", "error than flow")
        assert watched.tab.evaluate("document.documentElement.scrollWidth") <= 400
        assert watched.said == []
    context.close()


def test_another_stream(watched: Watched) -> None:
    watched.tab.locator("#stream").select_option("south")
    watched.says("#counts", "4 frames received")
    watched.says("#slots-says", "Newest 4 slots")
    watched.tab.reload()
    watched.says("#counts", "4 frames received")  # the address names it
    assert watched.said == []


def test_an_outage_is_seen_within_two_seconds(watched: Watched, served: Served) -> None:
    """Of three outages the quickest counts: a busy machine may hold one of them up."""
    took = []
    for _ in range(3):
        watched.says("#status", "live")
        watched.tab.evaluate(
            """() => { window.seen = null; new MutationObserver(() => {
              if (document.getElementById("status").textContent === "source down")
                window.seen ??= Date.now();
            }).observe(document.getElementById("status"), {childList: true}); }"""
        )
        served.taps[0].health.down("unplugged")
        since = served.taps[0].health.now().since
        watched.says("#status", "source down")
        watched.says("#notice", "source down: unplugged")
        seen = watched.tab.evaluate("window.seen") / 1e3
        took.append(seen - datetime.timestamp(since))
        served.taps[0].health.up()
    watched.says("#status", "live")
    assert min(took) < 2.0, took
    assert watched.tab.locator("#notice").is_hidden()


@pytest.mark.parametrize("width", [400, 1280])
def test_before_the_first_nowcast(
    browser: Browser, bundle: Bundle, session: Session, width: int
) -> None:
    """It says what is waited for, and offers nothing that cannot be used."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    with serve(bundle, session) as page:
        watched = Watched(context, page.port)
        off = [watched.tab.locator(f"#{name}") for name in ("play", "time", "score", "span")]
        watched.says("#waits", "Waiting for 4 frames: a nowcast needs 4 in a row.")
        for control in off:
            sync_api.expect(control).to_be_disabled()
        watched.tab.keyboard.press(" ")
        assert watched.tab.get_attribute("#play", "aria-pressed") == "false"
        watched.says("#files", "none yet")
        assert watched.tab.locator("#difference-legend").is_hidden()
        assert all(watched.tab.locator("select:visible option:checked").all_inner_texts())
        page.give(0, 1)
        watched.says("#waits", "Waiting for 2 more frames")
        for control, usable in zip(off, (True, True, False, False), strict=True):
            assert control.is_enabled() == usable
        strip = watched.tab.locator("#strip li").first.bounding_box()
        assert strip is not None
        assert strip["width"] < 120
        page.give(5, 5)  # after a hole
        watched.says("#waits", "Waiting for 3 more frames")
        page.give(6, 8)
        watched.ready()
        assert watched.tab.locator("#waits").is_hidden()
        watched.says("#files", "NetCDF")
        page.give(9, 9)
        watched.says("#skill-says", "1 forecast compared")
        assert all(control.is_enabled() for control in off)
        assert watched.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert not [line for line in watched.said if "ERR_" not in line]
    context.close()


def test_an_archive_that_is_too_short(browser: Browser, bundle: Bundle, session: Session) -> None:
    context = browser.new_context()
    with serve(bundle, session) as page:
        page.give(0, 2)
        watched = Watched(context, page.port)
        watched.says("#waits", "Waiting for 1 more frame: ")
        page.taps[0].give(None)
        watched.says("#waits", "the source ended before there were 4 frames in a row")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_and_the_dark(browser: Browser, served: Served, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": 400, "height": 800},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    watched = Watched(context, served.port).ready()
    assert watched.tab.evaluate("document.documentElement.scrollWidth") <= 400
    paper, ink = watched.tab.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor,
                  getComputedStyle(document.body).color].map(
                    (c) => c.match(/\\d+/g).slice(0, 3).reduce((sum, n) => sum + Number(n), 0))"""
    )
    assert (paper > ink) == (scheme == "light")
    for name in ("#play", "#time"):
        box = watched.tab.locator(name).bounding_box()
        assert box is not None
        assert box["width"] > 44  # for a thumb
    context.close()


def test_the_page_outlives_its_server(browser: Browser, bundle: Bundle, session: Session) -> None:
    context = browser.new_context()
    with serve(bundle, session) as page:
        page.give(0, 5)
        page.settle(3)
        watched = Watched(context, page.port).ready()
        watched.says("#status", "live")
    watched.says("#status", "no contact")
    watched.says("#notice", "what you see is old")
    with serve(bundle, session, port=page.port) as again:
        again.give(20, 26)
        again.settle(4)
        watched.says("#status", "live")
        watched.says("#counts", "7 frames received")
        assert "01:55" in watched.text("#age") or "02:00" in watched.text("#age")
    context.close()
