"""What does not hold is refused in a sentence, and nothing that is sent is a bug."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("fastapi", "uvicorn", "pyproj"):  # an edge device may have none of them
    pytest.importorskip(library)

import sys
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from hypothesis import event, given, settings
from hypothesis import strategies as st

from stpl_core.bundle import Bundle
from stpl_runtime.engine import Session
from stpl_runtime.page.gis.edr import Edr
from stpl_runtime.page.gis.ground import ground_of
from stpl_runtime.page.gis.refusal import RefusedError
from stpl_runtime.page.gis.wms import wms
from tests.runtime.conftest import make_frame
from tests.runtime.page.gis.asking import BOTTOM, GRID, LEFT, MAP, RIGHT, TOP, ask, refusal
from tests.runtime.page.gis.grids import nowcast_on, with_chances
from tests.runtime.page.serving import Served, serve

HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"width": 10**9, "height": 10**9}, ""),
    ({"width": 2049}, ""),
    ({"width": 0}, ""),
    ({"width": -5}, ""),
    ({"width": "1e3"}, ""),
    ({"width": "9" * 500}, ""),
    ({"width": None}, ""),
    ({"bbox": "nan,nan,nan,nan"}, ""),
    ({"bbox": "inf,0,1,1"}, ""),
    ({"bbox": "1e308,0,1.1e308,1"}, ""),
    ({"bbox": f"{RIGHT},{BOTTOM},{LEFT},{TOP}"}, ""),
    ({"bbox": f"{LEFT},{BOTTOM},{LEFT},{TOP}"}, ""),
    ({"bbox": "1,2,3"}, ""),
    ({"bbox": "1,2,3,4,5"}, ""),
    ({"bbox": None}, ""),
    ({"bbox": "<a>,&b;,\"c\",'d'"}, ""),
    ({"crs": "EPSG:999999"}, "InvalidCRS"),
    ({"crs": "EPSG:28992"}, "InvalidCRS"),
    ({"crs": "+proj=longlat +init=/etc/passwd"}, "InvalidCRS"),
    ({"crs": None}, "InvalidCRS"),
    ({"layers": "none"}, "LayerNotDefined"),
    ({"layers": "nowcast,observed"}, "LayerNotDefined"),
    ({"layers": "]]><script>alert(1)</script>"}, "LayerNotDefined"),
    ({"layers": "\x00\x01\ud7ff\uffff\u202e"}, "LayerNotDefined"),
    ({"layers": None}, "LayerNotDefined"),
    ({"styles": "usa,usa"}, "StyleNotDefined"),
    ({"styles": "../../etc/passwd"}, "StyleNotDefined"),
    ({"format": "image/jpeg"}, "InvalidFormat"),
    ({"format": None}, "InvalidFormat"),
    ({"time": "<!ENTITY x SYSTEM 'file:///etc/passwd'>"}, "InvalidDimensionValue"),
    ({"time": "9" * 900}, "InvalidDimensionValue"),
    ({"bgcolor": "red"}, ""),
    ({"version": "1.1.1"}, ""),
    ({"version": None}, ""),
    ({"service": "WFS"}, ""),
    ({"request": "Get&Map"}, "OperationNotSupported"),
    ({"request": None}, "OperationNotSupported"),
    ({"request": "GetFeatureInfo", "i": -1, "j": 0, "query_layers": "nowcast"}, "InvalidPoint"),
    ({"request": "GetLegendGraphic", "layer": "none"}, "LayerNotDefined"),
]


@pytest.mark.parametrize(("changes", "code"), HOSTILE)
def test_what_does_not_hold_is_refused(shown: Served, changes: dict[str, Any], code: str) -> None:
    found, text = refusal(ask(shown, **changes))
    assert found == code
    assert len(text) < 600
    assert "expected" in text or "there are" in text


def test_refused_texts_are_no_markup(shown: Served) -> None:
    sent = "]]><ServiceException code='x'>\"&amp;"
    answer = ask(shown, layers=sent)
    assert sent.encode() not in answer[2]
    assert sent.replace("'", "\\'") in refusal(answer)[1].replace("'", "\\'").replace("\\\\", "\\")


WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from([str(value) for value in MAP.values()]),
    st.sampled_from(["nowcast", "EPSG:4326", "EPSG:3857", "1,2,3,4", "nan", "-1", "1", "GetMap"]),
    st.lists(st.floats().map(repr), min_size=4, max_size=4).map(",".join),
)
NAMES = st.sampled_from(
    [*MAP, "time", "lead", "i", "j", "query_layers", "info_format", "layer", "style", "bgcolor"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, WORDS, max_size=6))
def test_nothing_that_is_sent_is_a_bug(changes: dict[str, str]) -> None:
    asked = {**{name: str(value) for name, value in MAP.items()}, **changes}
    made = wms({"": with_chances(nowcast_on(GRID))}, asked, "http://localhost/wms?")
    if made.media == "text/xml":
        ElementTree.fromstring(made.content)


PLACE = st.tuples(*[st.one_of(st.floats(-400, 400), st.just(5.0), st.just(90.0))] * 2)
RINGS = st.lists(st.lists(PLACE, max_size=6), max_size=3)
SIGNS = st.text("()POLYGNMUTI, 0123456789.-e+", max_size=40)


def as_polygon(rings: list[list[tuple[float, float]]], closes: bool) -> str:
    texts = [
        ",".join(f"{x:.4f} {y:.4f}" for x, y in [*ring, *(ring[:1] if closes else [])])
        for ring in rings
    ]
    return f"POLYGON(({'),('.join(texts)}))"


@settings(max_examples=300, deadline=None)
@given(st.one_of(SIGNS, st.builds(as_polygon, RINGS, st.booleans())))
def test_no_area_that_is_sent_is_a_bug(coords: str) -> None:
    edr = Edr({"": with_chances(nowcast_on(GRID))}, "http://localhost/edr")
    try:
        found = edr.area("nowcast", {"coords": coords})
    except RefusedError as refused:
        status = refused.status
        event(f"refused with {status}")
        if status in (400, 404):
            return
        raise
    places = found["domain"]["axes"]["composite"]["values"]
    assert 0 < len(places) <= GRID.width * GRID.height


def test_frames_without_a_place(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session) as page:
        status, headers, body = page.get("/wms?service=WMS&request=GetCapabilities")
        assert (status, headers["content-type"]) == (503, "text/xml; charset=utf-8")
        assert b"no nowcast yet" in body
        for slot in range(4):
            page.taps[0].give(make_frame(slot))
        page.settle(1)
        for query in ("service=WMS&request=GetCapabilities", urlencode(MAP)):
            assert "do not say where" in refusal(page.get(f"/wms?{query}"))[1]
        for path in ("/tiles/nowcast/0/0/0.png", "/edr", "/edr/collections"):
            assert page.get(path)[0] == 404
            assert b"do not say where" in page.get(path)[2]


def test_without_pyproj_it_says_what_to_install(
    shown: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyproj", None)
    ground_of.cache_clear()
    shown.hub.views[""].nowcast(nowcast_on(GRID))
    assert "the extra [frames]" in refusal(ask(shown))[1]
    for path in ("/tiles/nowcast/0/0/0.png", "/edr/collections"):
        status, _, body = shown.get(path)
        assert status == 501
        assert b"the extra [frames]" in body
