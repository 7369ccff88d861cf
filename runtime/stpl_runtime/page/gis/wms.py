"""WMS 1.3.0 of the newest nowcasts: GetCapabilities, GetMap, GetFeatureInfo, GetLegendGraphic.

One parameter is ours: `LEAD=N` asks for the Nth frame ahead, whatever its time. It and `token`
stay in the addresses that GetCapabilities gives, which lists no times then.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stpl_core.drawing.colours import Colour
from stpl_core.errors import MissingExtraError
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.page.gis.capabilities import (
    JSON,
    PLAIN,
    PNG,
    VERSION,
    XML,
    capabilities,
    exception_report,
)
from stpl_runtime.page.gis.drawing import MOST_PIXELS, View, legend_png, map_png
from stpl_runtime.page.gis.ground import Box
from stpl_runtime.page.gis.layers import Layer, layers_of
from stpl_runtime.page.gis.refusal import RefusedError, quoted
from stpl_runtime.timing import utc_text

Nowcasts = Mapping[str, Nowcast]
"""Stream -> its newest nowcast."""
Given = Mapping[str, str]
"""Parameters of a request, their names in small letters."""
_LARGEST = 1e9
"""Of a number in a box: a metre or a degree beyond is no place."""
_COLOUR = re.compile(r"0x([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    content: bytes
    media: str
    status: int = 200
    is_refusal: bool = False


def wms(nowcasts: Nowcasts, given: Given, url: str) -> Answer:
    """Answer a request; a refusal is a ServiceException.

    Args:
        nowcasts: the newest ones.
        given: the parameters.
        url: of this WMS, to which parameters can be added.
    """
    try:
        layers = layers_of(nowcasts)
        answers = _asked(given)
        return answers(layers, given, url)
    except RefusedError as refused:
        status = 503 if refused.status == 503 else 200  # programs show the text of a 200 alone
        return Answer(exception_report(refused.text, refused.code), XML, status, is_refusal=True)
    except MissingExtraError as error:
        return Answer(exception_report(str(error), ""), XML, is_refusal=True)


def lasting(given: Given) -> dict[str, str]:
    """The parameters that stay in the addresses which a list of layers gives."""
    return {name: given[name] for name in ("token", "lead") if name in given}


def _asked(given: Given) -> Callable[[dict[str, Layer], Given, str], Answer]:
    """What answers the operation that is asked for."""
    service = given.get("service", "WMS")
    if service.upper() != "WMS":
        raise RefusedError(f"SERVICE={quoted(service)}: expected WMS")
    operations = {
        "getcapabilities": _capabilities,
        "getmap": _map,
        "getfeatureinfo": _feature_info,
        "getlegendgraphic": _legend,
    }
    request = given.get("request", "")
    found = operations.get(request.lower())
    if found is None:
        raise RefusedError(
            f"REQUEST={quoted(request)}: expected GetCapabilities, GetMap, GetFeatureInfo or "
            "GetLegendGraphic",
            "OperationNotSupported",
        )
    version = given.get("version", "")
    if found in (_map, _feature_info) and version != VERSION:
        raise RefusedError(f"VERSION={quoted(version)}: expected {VERSION}")
    return found


def _capabilities(layers: dict[str, Layer], given: Given, url: str) -> Answer:
    listed = list(layers.values())
    return Answer(capabilities(listed, url, timed="lead" not in given), XML)


def _map(layers: dict[str, Layer], given: Given, url: str) -> Answer:
    layer = _layer(layers, given.get("layers", ""), "LAYERS")
    style = _style(layer, given.get("styles", ""))
    _one_of(given.get("format", ""), (PNG,), "FORMAT", "InvalidFormat")
    step = layer.step_at(given.get("time", ""), given.get("lead", ""))
    return Answer(map_png(layer, step, style, _view(layer, given)), PNG)


def _feature_info(layers: dict[str, Layer], given: Given, url: str) -> Answer:
    layer = _layer(layers, given.get("query_layers", given.get("layers", "")), "QUERY_LAYERS")
    media = _one_of(given.get("info_format", PLAIN), (PLAIN, JSON), "INFO_FORMAT", "InvalidFormat")
    step = layer.step_at(given.get("time", ""), given.get("lead", ""))
    view = _view(layer, given)
    i, j = (_count(given, name, most) for name, most in (("i", view.width), ("j", view.height)))
    left, bottom, right, top = view.box
    x = left + (i + 0.5) * (right - left) / view.width
    y = top - (j + 0.5) * (top - bottom) / view.height
    found = _feature(layer, step, layer.ground.pixel(view.system, x, y))
    if media == JSON:
        return Answer(json.dumps(found).encode(), JSON)
    return Answer("".join(f"{name}: {value}\n" for name, value in found.items()).encode(), PLAIN)


def _feature(layer: Layer, step: int, pixel: tuple[int, int] | None) -> dict[str, Any]:
    """The value of a pixel, and where it lies."""
    time = layer.time_of(step)
    found: dict[str, Any] = {
        "layer": layer.name,
        "time": None if time is None else utc_text(time),
        "value": None,
        "units": layer.units,
    }
    if pixel is None:
        return found
    lon, lat = layer.ground.centre(*pixel)
    found["value"] = layer.value(step, *pixel)
    return {**found, "x": pixel[0], "y": pixel[1], "lon": round(lon, 5), "lat": round(lat, 5)}


def _legend(layers: dict[str, Layer], given: Given, url: str) -> Answer:
    layer = _layer(layers, given.get("layer", ""), "LAYER")
    style = _style(layer, given.get("style", ""))
    return Answer(legend_png(layer.colours(style), layer.units), PNG)


def _layer(layers: dict[str, Layer], asked: str, name: str) -> Layer:
    found = layers.get(asked)
    if found is None:
        raise RefusedError(
            f"{name}={quoted(asked)}: expected one of {', '.join(layers)}", "LayerNotDefined"
        )
    return found


def _style(layer: Layer, asked: str) -> str:
    styles = layer.styles
    word = next(iter(styles)) if asked in ("", "default") else asked
    return _one_of(word, tuple(styles), "STYLES", "StyleNotDefined")


def _one_of(asked: str, words: tuple[str, ...], name: str, code: str) -> str:
    if asked not in words:
        raise RefusedError(f"{name}={quoted(asked)}: expected {' or '.join(words)}", code)
    return asked


def _view(layer: Layer, given: Given) -> View:
    asked = given.get("crs", "").upper()
    systems = layer.ground.systems
    if asked not in systems:
        raise RefusedError(
            f"CRS={quoted(asked)}: expected one of {', '.join(systems)}", "InvalidCRS"
        )
    first, second, third, fourth = _numbers(given.get("bbox", ""))
    box = Box(first, second, third, fourth)
    if systems[asked].north_first:
        box = Box(second, first, fourth, third)
    if box.left >= box.right or box.bottom >= box.top:
        raise RefusedError(
            f"BBOX={quoted(given['bbox'])}: expected least before greatest, in the order of the "
            f"axes of {asked}"
        )
    sizes = [1 + _count(given, name, MOST_PIXELS, first=1) for name in ("width", "height")]
    transparent = given.get("transparent", "FALSE").upper() == "TRUE"
    return View(asked, box, sizes[0], sizes[1], transparent, _ground(given))


def _numbers(text: str) -> tuple[float, float, float, float]:
    try:
        numbers = [float(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(n) and abs(n) <= _LARGEST for n in numbers):
        raise RefusedError(f"BBOX={quoted(text)}: expected four numbers, such as 50,3,54,8")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _count(given: Given, name: str, most: int, first: int = 0) -> int:
    """A whole number from `first` to less than `first + most`, counted from 0."""
    text = given.get(name, "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else -1
    if not first <= number < first + most:
        code = "" if first else "InvalidPoint"
        raise RefusedError(
            f"{name.upper()}={quoted(text)}: expected {first} to {first + most - 1}", code
        )
    return number - first


def _ground(given: Given) -> Colour:
    text = given.get("bgcolor", "0xFFFFFF")
    found = _COLOUR.fullmatch(text)
    if found is None:
        raise RefusedError(f"BGCOLOR={quoted(text)}: expected a colour such as 0xFFFFFF")
    red, green, blue = (int(part, 16) for part in found.groups())
    return red, green, blue
