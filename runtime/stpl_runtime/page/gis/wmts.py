"""WMTS 1.0.0 of the newest nowcasts: what it says of itself. Its tiles are those of `tiles`.

`LEAD=N` and `token` stay in the addresses of the tiles, as they do in those of the WMS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode

from stpl_core import __version__
from stpl_core.drawing.pictures import png_size
from stpl_core.errors import MissingExtraError
from stpl_runtime.page.gis.capabilities import PNG, XML
from stpl_runtime.page.gis.drawing import legend_png
from stpl_runtime.page.gis.ground import MERCATOR
from stpl_runtime.page.gis.layers import Layer, layers_of, rights
from stpl_runtime.page.gis.refusal import RefusedError, quoted
from stpl_runtime.page.gis.tiles import HALF_M, PIXELS
from stpl_runtime.page.gis.wms import Answer, Given, Nowcasts, lasting
from stpl_runtime.page.gis.xml import HEAD, Xml, element
from stpl_runtime.timing import utc_text

VERSION = "1.0.0"
DOCUMENT = f"/wmts/{VERSION}/WMTSCapabilities.xml"
"""Where programs look for it that send no parameters."""
_MATRICES = "GoogleMapsCompatible"
"""A set that the standard knows by name: programs need not look into it."""
_DEEPEST = 18
"""Which ends here."""
_WIDEST_SCALE = 559082264.0287178
"""Of its first tile, by the standard's pixels of 0.28 mm."""
_SYSTEM = "urn:ogc:def:crs:EPSG::3857"
_NEWEST = "current"


def wmts(nowcasts: Nowcasts, given: Given, root: str) -> Answer:
    """Answer a request for the capabilities; a refusal is an ExceptionReport.

    Args:
        nowcasts: the newest ones.
        given: the parameters.
        root: address of the server, without a slash at its end.
    """
    try:
        request = given.get("request", "GetCapabilities")
        if request.lower() != "getcapabilities":
            raise RefusedError(
                f"REQUEST={quoted(request)}: expected GetCapabilities, which has the addresses of "
                "the tiles",
                "OperationNotSupported",
                status=501,
            )
        layers = list(layers_of(nowcasts).values())
        return Answer(_capabilities(layers, root, given), XML)
    except RefusedError as refused:
        report = _exception(refused.text, refused.code)
        return Answer(report, XML, refused.status, is_refusal=True)
    except MissingExtraError as error:
        return Answer(_exception(str(error), ""), XML, 501, is_refusal=True)


def _capabilities(layers: Sequence[Layer], root: str, given: Given) -> bytes:
    kept = lasting(given)
    url = f"{root}{DOCUMENT}{f'?{urlencode(kept)}' if kept else ''}"
    document = element(
        "Capabilities",
        element(
            "ows:ServiceIdentification",
            element("ows:Title", "Live nowcasts"),
            element("ows:Abstract", f"The newest nowcast of stpl-deploy {__version__}."),
            element("ows:ServiceType", "OGC WMTS"),
            element("ows:ServiceTypeVersion", VERSION),
            element("ows:Fees", "none"),
            element("ows:AccessConstraints", rights(layers)),
        ),
        element("Contents", *(_layer(layer, root, kept) for layer in layers), _matrices()),
        element("ServiceMetadataURL", xlink__href=url),
        version=VERSION,
        xmlns="http://www.opengis.net/wmts/1.0",
        xmlns__ows="http://www.opengis.net/ows/1.1",
        xmlns__xlink="http://www.w3.org/1999/xlink",
    )
    return f"{HEAD}{document}\n".encode()


def _layer(layer: Layer, root: str, kept: Mapping[str, str]) -> Xml:
    west, south, east, north = layer.ground.degrees
    left, bottom, right, top = layer.ground.box(MERCATOR)
    timed = "lead" not in kept and bool(layer.times)
    words = ["style={Style}", *(["time={Time}"] if timed else [])]
    if kept:
        words.append(urlencode(kept))
    if layer.nowcast.issue_time is not None:  # GDAL never asks twice for one address
        words.append(f"issued={utc_text(layer.nowcast.issue_time)}")
    tiles = f"{root}/tiles/{quote(layer.name, safe='')}/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.png"
    template = f"{tiles}?{'&'.join(words)}"
    return element(
        "Layer",
        element("ows:Title", layer.title),
        element("ows:Abstract", layer.about),
        element(
            "ows:WGS84BoundingBox",
            element("ows:LowerCorner", f"{west!r} {south!r}"),
            element("ows:UpperCorner", f"{east!r} {north!r}"),
        ),
        element("ows:Identifier", layer.name),
        element(
            "ows:BoundingBox",
            element("ows:LowerCorner", f"{left!r} {bottom!r}"),
            element("ows:UpperCorner", f"{right!r} {top!r}"),
            crs=_SYSTEM,
        ),
        *(
            _style(layer, word, title, root, kept, is_default=n == 0)
            for n, (word, title) in enumerate(layer.styles.items())
        ),
        element("Format", PNG),
        *([_times(layer)] if timed else []),
        element("TileMatrixSetLink", element("TileMatrixSet", _MATRICES)),
        element("ResourceURL", format=PNG, resourceType="tile", template=template),
    )


def _style(
    layer: Layer, word: str, title: str, root: str, kept: Mapping[str, str], *, is_default: bool
) -> Xml:
    width, height = png_size(legend_png(layer.colours(word), layer.units))
    asked = {"service": "WMS", "request": "GetLegendGraphic", "layer": layer.name, "style": word}
    return element(
        "Style",
        element("ows:Title", title),
        element("ows:Identifier", word),
        element(
            "LegendURL",
            format=PNG,
            xlink__href=f"{root}/wms?{urlencode({**asked, **kept})}",
            width=width,
            height=height,
        ),
        isDefault=str(is_default).lower(),
    )


def _times(layer: Layer) -> Xml:
    """The newest nowcast's first frame ahead is what is shown where no time is chosen."""
    return element(
        "Dimension",
        element("ows:Identifier", "Time"),
        element("ows:UOM", "ISO8601"),
        element("Default", _NEWEST),
        element("Current", "true"),
        *(element("Value", text) for text in (_NEWEST, *map(utc_text, layer.times))),
    )


def _matrices() -> Xml:
    corner = f"{-HALF_M!r} {HALF_M!r}"
    return element(
        "TileMatrixSet",
        element("ows:Identifier", _MATRICES),
        element("ows:SupportedCRS", _SYSTEM),
        element("WellKnownScaleSet", f"urn:ogc:def:wkss:OGC:1.0:{_MATRICES}"),
        *(
            element(
                "TileMatrix",
                element("ows:Identifier", str(zoom)),
                element("ScaleDenominator", repr(_WIDEST_SCALE / 2**zoom)),
                element("TopLeftCorner", corner),
                element("TileWidth", str(PIXELS)),
                element("TileHeight", str(PIXELS)),
                element("MatrixWidth", str(2**zoom)),
                element("MatrixHeight", str(2**zoom)),
            )
            for zoom in range(_DEEPEST + 1)
        ),
    )


def _exception(text: str, code: str) -> bytes:
    """A refusal as OWS 1.1.0 has it."""
    report = element(
        "ows:ExceptionReport",
        element(
            "ows:Exception",
            element("ows:ExceptionText", text),
            exceptionCode=code or "NoApplicableCode",
        ),
        version="1.0.0",
        xmlns__ows="http://www.opengis.net/ows/1.1",
    )
    return f"{HEAD}{report}\n".encode()
