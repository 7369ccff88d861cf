"""What the WMS says of itself, as WMS 1.3.0 has it: layers, boxes, times, styles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from stpl_core import __version__
from stpl_core.drawing.pictures import png_size
from stpl_runtime.page.gis.drawing import MOST_PIXELS, legend_png
from stpl_runtime.page.gis.layers import Layer, rights
from stpl_runtime.page.gis.xml import HEAD, Xml, element
from stpl_runtime.timing import utc_text

VERSION = "1.3.0"
PNG, PLAIN, JSON, XML = "image/png", "text/plain", "application/json", "text/xml"
_SCHEMA = "http://www.opengis.net/wms http://schemas.opengis.net/wms/1.3.0/capabilities_1_3_0.xsd"


def capabilities(layers: Sequence[Layer], url: str, *, timed: bool = True) -> bytes:
    """The document.

    Args:
        layers: what there is to show.
        url: of this WMS, to which parameters can be added.
        timed: list the times; not where `url` says which frame is meant.
    """
    document = element(
        "WMS_Capabilities",
        _service(layers, url),
        element(
            "Capability",
            element(
                "Request",
                _operation("GetCapabilities", (XML,), url),
                _operation("GetMap", (PNG,), url),
                _operation("GetFeatureInfo", (PLAIN, JSON), url),
            ),
            element("Exception", element("Format", "XML")),
            element("Layer", element("Title", "stpl-deploy"), *_parts(layers, url, timed)),
        ),
        version=VERSION,
        xmlns="http://www.opengis.net/wms",
        xmlns__xlink="http://www.w3.org/1999/xlink",
        xmlns__xsi="http://www.w3.org/2001/XMLSchema-instance",
        xsi__schemaLocation=_SCHEMA,
    )
    return f"{HEAD}{document}\n".encode()


def _service(layers: Sequence[Layer], url: str) -> Xml:
    return element(
        "Service",
        element("Name", "WMS"),
        element("Title", "Live nowcasts"),
        element("Abstract", f"The newest nowcast of stpl-deploy {__version__}."),
        _online(url),
        element("Fees", "none"),
        element("AccessConstraints", rights(layers)),
        element("LayerLimit", "1"),
        element("MaxWidth", str(MOST_PIXELS)),
        element("MaxHeight", str(MOST_PIXELS)),
    )


def _online(url: str) -> Xml:
    return element("OnlineResource", xlink__type="simple", xlink__href=url)


def _operation(name: str, formats: Sequence[str], url: str) -> Xml:
    return element(
        name,
        *(element("Format", one) for one in formats),
        element("DCPType", element("HTTP", element("Get", _online(url)))),
    )


def _parts(layers: Sequence[Layer], url: str, timed: bool) -> list[Xml]:
    return [
        element(
            "Layer",
            element("Name", layer.name),
            element("Title", layer.title),
            element("Abstract", layer.about),
            *(element("CRS", name) for name in layer.ground.systems),
            *_boxes(layer),
            *(_times(layer) if timed else ()),
            *_attribution(layer.nowcast.notes),
            *(_style(layer, word, title, url) for word, title in layer.styles.items()),
            queryable="1",
        )
        for layer in layers
    ]


def _boxes(layer: Layer) -> list[Xml]:
    west, south, east, north = layer.ground.degrees
    found = [
        element(
            "EX_GeographicBoundingBox",
            element("westBoundLongitude", repr(west)),
            element("eastBoundLongitude", repr(east)),
            element("southBoundLatitude", repr(south)),
            element("northBoundLatitude", repr(north)),
        )
    ]
    for name, system in layer.ground.systems.items():
        least_x, least_y, most_x, most_y = map(repr, system.in_order(layer.ground.box(name)))
        found.append(
            element("BoundingBox", CRS=name, minx=least_x, miny=least_y, maxx=most_x, maxy=most_y)
        )
    return found


def _times(layer: Layer) -> list[Xml]:
    standard = layer.time_of(layer.standard)
    if standard is None:
        return []
    times = ",".join(utc_text(time) for time in layer.times)
    return [
        element("Dimension", times, name="time", units="ISO8601", default=utc_text(standard),
                nearestValue="0", current="1")
    ]  # fmt: skip


def _attribution(notes: Mapping[str, str]) -> list[Xml]:
    text = notes.get("attribution") or notes.get("institution")
    return [element("Attribution", element("Title", text))] if text else []


def _style(layer: Layer, word: str, title: str, url: str) -> Xml:
    picture = legend_png(layer.colours(word), layer.units)
    width, height = png_size(picture)
    asked = {
        "service": "WMS", "version": VERSION, "request": "GetLegendGraphic", "format": PNG,
        "layer": layer.name, "style": word,
    }  # fmt: skip
    return element(
        "Style",
        element("Name", word),
        element("Title", title),
        element(
            "LegendURL",
            element("Format", PNG),
            _online(f"{url}{urlencode(asked)}"),
            width=width,
            height=height,
        ),
    )


def exception_report(text: str, code: str) -> bytes:
    """A refusal as WMS 1.3.0 has it."""
    report = element(
        "ServiceExceptionReport",
        element("ServiceException", text, code=code or None),
        version=VERSION,
        xmlns="http://www.opengis.net/ogc",
    )
    return f"{HEAD}{report}\n".encode()
