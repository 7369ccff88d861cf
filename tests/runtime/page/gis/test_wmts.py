"""What the WMTS says of itself: to the OGC's schema, to OWSLib, and that its addresses lead on."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("fastapi", "uvicorn", "pyproj"):  # an edge device may have none of them
    pytest.importorskip(library)

import io
import sys
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from stpl_core.bundle import Bundle
from stpl_core.drawing.colours import palettes
from stpl_runtime.engine import Session
from stpl_runtime.page.gis.ground import ground_of
from tests.runtime.page.gis.asking import GRID
from tests.runtime.page.gis.grids import nowcast_on
from tests.runtime.page.gis.schemas import check
from tests.runtime.page.serving import Served, serve

WMTS, OWS = "{http://www.opengis.net/wmts/1.0}", "{http://www.opengis.net/ows/1.1}"
KVP = "/wmts?service=WMTS&version=1.0.0&request=GetCapabilities"
REST = "/wmts/1.0.0/WMTSCapabilities.xml"


def capabilities(page: Served, path: str = KVP) -> ElementTree.Element:
    status, headers, body = page.get(path)
    assert (status, headers["content-type"]) == (200, "text/xml; charset=utf-8"), body
    return ElementTree.fromstring(body)


def template(root: ElementTree.Element, name: str) -> str:
    (layer,) = (one for one in root.iter(f"{WMTS}Layer")
                if one.findtext(f"{OWS}Identifier") == name)  # fmt: skip
    found = layer.find(f"{WMTS}ResourceURL")
    assert found is not None
    return found.get("template", "")


def tile(page: Served, address: str, **words: Any) -> tuple[int, bytes]:
    """A tile by a template, as a program fills it in."""
    for name, word in {"TileMatrix": 7, "TileCol": 65, "TileRow": 42, **words}.items():
        address = address.replace(f"{{{name}}}", quote(str(word)))
    assert "{" not in address
    status, _, body = page.get(address.removeprefix(f"http://127.0.0.1:{page.port}"))
    return status, body


def test_the_schemas_hold(shown: Served) -> None:
    for path in (KVP, REST, f"{KVP}&lead=2"):
        check(shown.get(path)[2], "wmts/1.0/wmtsGetCapabilities_response.xsd")
    check(shown.get("/wmts?request=GetTile")[2], "ows/1.1.0/owsExceptionReport.xsd")


# OWSLib asks whether an element is true.
@pytest.mark.filterwarnings("ignore:Truth-testing of elements:FutureWarning")
def test_owslib_reads_what_there_is(shown: Served) -> None:
    owslib = pytest.importorskip("owslib.wmts")
    service = owslib.WebMapTileService(f"http://127.0.0.1:{shown.port}{REST}")
    assert list(service.contents) == [
        "nowcast", "observed", "probability_of_exceedance_0.5", "probability_of_exceedance_5",
    ]  # fmt: skip
    layer = service["nowcast"]
    assert layer.boundingBoxWGS84 == pytest.approx(GRID.corners)
    assert layer.formats == ["image/png"]
    assert list(layer.styles) == list(palettes("mm h-1"))
    assert [word for word, style in layer.styles.items() if style["isDefault"]] == ["standard"]
    (matrices,) = service.tilematrixsets.values()
    assert matrices.crs == "urn:ogc:def:crs:EPSG::3857"
    zoom = matrices.tilematrix["9"]
    assert zoom.scaledenominator == pytest.approx(559082264.0287178 / 512)
    assert (zoom.matrixwidth, zoom.tilewidth) == (512, 256)
    legend = layer.styles["standard"]["legend"]
    status, headers, _ = shown.get(legend.removeprefix(f"http://127.0.0.1:{shown.port}"))
    assert (status, headers["content-type"]) == (200, "image/png")
    assert service.restonly


def test_its_tiles_are_there(shown: Served) -> None:
    address = template(capabilities(shown), "nowcast")
    assert address.startswith(f"http://127.0.0.1:{shown.port}/tiles/nowcast/")
    first = tile(shown, address, Style="standard", Time="current")
    assert first[0] == 200
    assert np.asarray(Image.open(io.BytesIO(first[1])))[..., 3].any()
    assert first == tile(shown, address, Style="standard", Time="2026-01-31T23:55:00Z")
    later = tile(shown, address, Style="standard", Time="2026-02-01T00:05:00Z")
    assert later[1] != first[1]
    assert tile(shown, address, Style="usa", Time="current")[1] != first[1]
    assert tile(shown, address, Style="standard", Time="2020-01-01")[0] == 400
    lead = template(capabilities(shown, f"{KVP}&lead=3"), "nowcast")
    assert "{Time}" not in lead
    assert tile(shown, lead, Style="standard") == later


def test_times_are_those_of_the_nowcast(shown: Served) -> None:
    root = capabilities(shown)
    (times, *_) = root.iter(f"{WMTS}Dimension")
    assert times.findtext(f"{WMTS}Default") == "current"
    assert [one.text for one in times.findall(f"{WMTS}Value")] == [
        "current", "2026-01-31T23:55:00Z", "2026-02-01T00:00:00Z", "2026-02-01T00:05:00Z",
    ]  # fmt: skip
    assert capabilities(shown, f"{KVP}&lead=1").find(f".//{WMTS}Dimension") is None


def test_a_token_stays_and_streams_have_layers_of_their_own(
    bundle: Bundle, session: Session
) -> None:
    token = "a-token-of-some-length&<"
    with serve(bundle, session, ("north", "south"), token=token) as page:
        for name in ("north", "south"):
            page.hub.views[name].nowcast(nowcast_on(GRID, stream=name))
        assert page.get(KVP)[0] == page.get(REST)[0] == 401
        root = capabilities(page, f"{KVP}&token={quote(token)}")
        address = template(root, "south:nowcast")
        assert tile(page, address, Style="standard", Time="current")[0] == 200
        url = root.find(f"{WMTS}ServiceMetadataURL")
        assert url is not None
        again = url.get("{http://www.w3.org/1999/xlink}href", "")
        capabilities(page, again.removeprefix(f"http://127.0.0.1:{page.port}"))


def test_it_lives(page: Served) -> None:
    page.hub.views[""].nowcast(nowcast_on(GRID))
    tag = page.get(KVP)[1]["etag"]
    assert page.get(KVP, {"If-None-Match": tag})[0] == 304
    page.hub.views[""].nowcast(nowcast_on(GRID, later=1))
    assert page.get(KVP, {"If-None-Match": tag})[0] == 200


def refusal(page: Served, path: str, expected: int) -> tuple[str, str]:
    status, headers, body = page.get(path)
    assert (status, headers["cache-control"]) == (expected, "no-store"), body
    root = ElementTree.fromstring(body)
    assert root.tag == f"{OWS}ExceptionReport"
    found = root.find(f"{OWS}Exception")
    assert found is not None
    return found.get("exceptionCode", ""), found.findtext(f"{OWS}ExceptionText") or ""


def test_refusals(shown: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = refusal(shown, "/wmts?request=Get<Tile>", 501)
    assert code == "OperationNotSupported"
    assert "'Get<Tile>': expected GetCapabilities" in text
    monkeypatch.setitem(sys.modules, "pyproj", None)
    ground_of.cache_clear()
    shown.hub.views[""].nowcast(nowcast_on(GRID))
    assert "the extra [frames]" in refusal(shown, KVP, 501)[1]


def test_before_there_is_one(bundle: Bundle, session: Session) -> None:
    with serve(bundle, session) as page:
        assert refusal(page, KVP, 503) == ("NoApplicableCode", "no nowcast yet")
        page.hub.views[""].nowcast(nowcast_on(None))
        assert "do not say where" in refusal(page, KVP, 404)[1]
