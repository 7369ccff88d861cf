"""How the tests ask the WMS, and read what it answers."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.runtime.page.gis.grids import HEIGHT, WIDTH, grid_of
from tests.runtime.page.serving import Served

GRID = grid_of("longitude and latitude")
LEFT, BOTTOM, RIGHT, TOP = GRID.corners
MAP = {
    "service": "WMS", "version": "1.3.0", "request": "GetMap", "layers": "nowcast", "styles": "",
    "crs": "CRS:84", "bbox": f"{LEFT!r},{BOTTOM!r},{RIGHT!r},{TOP!r}", "width": WIDTH,
    "height": HEIGHT, "format": "image/png", "transparent": "TRUE",
}  # fmt: skip
"""Of which each pixel is one of the frame."""
WMS, OGC = "{http://www.opengis.net/wms}", "{http://www.opengis.net/ogc}"


def ask(page: Served, **changes: Any) -> tuple[int, dict[str, str], bytes]:
    asked = {name: value for name, value in {**MAP, **changes}.items() if value is not None}
    return page.get(f"/wms?{urlencode(asked)}")


def picture(page: Served, **changes: Any) -> NDArray[np.uint8]:
    status, headers, body = ask(page, **changes)
    assert (status, headers["content-type"]) == (200, "image/png"), body
    return np.asarray(Image.open(io.BytesIO(body)))


def refusal(answer: tuple[int, dict[str, str], bytes]) -> tuple[str, str]:
    """Code and text of a ServiceException."""
    status, headers, body = answer
    assert status == 200, body
    assert headers["content-type"].startswith("text/xml")
    assert headers["cache-control"] == "no-store"
    root = ElementTree.fromstring(body)
    assert root.tag == f"{OGC}ServiceExceptionReport"
    (one,) = root
    return one.get("code", ""), one.text or ""


def capabilities(page: Served, query: str = "") -> ElementTree.Element:
    status, headers, body = page.get(f"/wms?service=WMS&request=GetCapabilities{query}")
    assert (status, headers["content-type"]) == (200, "text/xml; charset=utf-8"), body
    return ElementTree.fromstring(body)
