"""The live nowcast lies where it should for those who read it: OWSLib, GDAL, and PROJ itself."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("fastapi", "uvicorn", "pyproj"):  # an edge device may have none of them
    pytest.importorskip(library)

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray
from PIL import Image

from stpl_core.drawing.colours import colour_map
from stpl_core.grid import Grid
from tests.runtime.page.gis.grids import (
    BRIGHT,
    COLUMN,
    HEIGHT,
    PLACES,
    RAIN,
    ROW,
    UNSEEN,
    WIDTH,
    grid_of,
    nowcast_on,
    off_by,
)
from tests.runtime.page.serving import Served

Rgba = NDArray[np.uint8]
OWN = {"of its own, north first": "EPSG:3035", "of its own, east first": "EPSG:3067"}
SYSTEMS = [
    (name, system)
    for name in PLACES
    for system in ("CRS:84", "EPSG:4326", "EPSG:3857", *([OWN[name]] if name in OWN else []))
    if (name, system) != ("about the pole", "EPSG:3857")  # which ends at 85 degrees
]
WIDE, HIGH = 600, 500


def colour_of(value: float) -> list[int]:
    colours = colour_map("mm h-1", 0.0, 100.0)
    return colours.picture(np.array([[value]], np.float32))[0, 0].tolist()


def show(page: Served, name: str) -> Grid:
    grid = grid_of(name)
    page.hub.views[""].nowcast(nowcast_on(grid))
    return grid


def bright(picture: Rgba) -> tuple[float, float]:
    """The middle of the bright pixel, in pixels of the picture: x and y."""
    rows, columns = np.nonzero((picture[..., :3] == colour_of(BRIGHT)).all(axis=-1))
    assert len(rows) > 3, "the bright pixel is seen"
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def owslib_of(page: Served) -> Any:
    wms = pytest.importorskip("owslib.wms")
    return wms.WebMapService(f"http://127.0.0.1:{page.port}/wms", version="1.3.0")


@pytest.mark.parametrize(("name", "system"), SYSTEMS)
def test_owslib_places_it(page: Served, name: str, system: str) -> None:
    grid = show(page, name)
    service = owslib_of(page)
    layer = service["nowcast"]
    assert system in layer.crsOptions
    boxes = {box[4]: [float(edge) for edge in box[:4]] for box in layer.crs_list}
    left, bottom, right, top = boxes[system]
    if name == "about the pole":  # so that a pixel is large enough
        bottom = 89.8
    answer = service.getmap(
        layers=["nowcast"], styles=[""], srs=system, bbox=(left, bottom, right, top),
        size=(WIDE, HIGH), format="image/png", transparent=True,
    )  # fmt: skip
    picture = np.asarray(Image.open(io.BytesIO(answer.read())))
    assert picture.shape == (HIGH, WIDE, 4)
    x, y = bright(picture)
    east = left + x * (right - left) / WIDE
    north = top - y * (top - bottom) / HIGH
    assert off_by(grid, system, east, north) < 0.5


def picture_by_proj(grid: Grid, box: tuple[float, ...], system: str) -> Rgba:
    """The picture that it should be, in the order of the axes of `system`, pixel for pixel."""
    first, second, third, fourth = box
    north_first = pyproj.CRS(system).axis_info[0].direction == "north"
    low_y, low_x, high_y, high_x = box if north_first else (second, first, fourth, third)
    onto = pyproj.Transformer.from_crs(system, pyproj.CRS(grid.crs_wkt))  # its own axes
    x = low_x + (np.arange(WIDE) + 0.5) * (high_x - low_x) / WIDE
    y = high_y - (np.arange(HIGH) + 0.5) * (high_y - low_y) / HIGH
    x, y = (part.ravel() for part in np.meshgrid(x, y))
    east, north = onto.transform(*((y, x) if north_first else (x, y)))
    if pyproj.CRS(grid.crs_wkt).axis_info[0].direction == "north":
        east, north = north, east
    column = np.floor((east - grid.affine[0]) / grid.affine[2]).astype(int)
    row = np.floor((north - grid.affine[1]) / grid.affine[3]).astype(int)
    inside = (column >= UNSEEN) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
    colours, picture = colour_map("mm h-1", 0.0, 100.0), np.zeros((HIGH * WIDE, 4), np.uint8)
    frame = nowcast_on(grid).frames[0, 0]
    values = frame[row[inside], column[inside]]
    picture[inside, :3] = colours.picture(values[None])[0]
    picture[inside, 3] = 255
    dry = np.flatnonzero(inside)[values < 0.1]
    picture[dry] = (255, 255, 255, 64)
    return picture.reshape(HIGH, WIDE, 4)


@pytest.mark.parametrize(
    ("name", "system"),
    [
        (name, system)
        for name, system in SYSTEMS
        if system != "CRS:84" and name not in ("degrees east of 180", "about the pole")
    ],
)
def test_every_pixel_is_that_of_proj(page: Served, name: str, system: str) -> None:
    """The box as WMS 1.3.0 orders it: latitude first in EPSG:4326, northing first in EPSG:3035."""
    grid = show(page, name)
    layer = owslib_of(page)["nowcast"]
    left, bottom, right, top = next(map(float, box[:4]) for box in layer.crs_list
                                    if box[4] == system)  # fmt: skip
    north_first = system in ("EPSG:4326", "EPSG:3035")
    box = (bottom, left, top, right) if north_first else (left, bottom, right, top)
    query = (
        "service=WMS&version=1.3.0&request=GetMap&layers=nowcast&styles=&format=image/png"
        f"&transparent=true&width={WIDE}&height={HIGH}&crs={system}&bbox={','.join(map(repr, box))}"
    )
    status, headers, body = page.get(f"/wms?{query}")
    assert (status, headers["content-type"]) == (200, "image/png"), body
    found = np.asarray(Image.open(io.BytesIO(body)))
    expected = picture_by_proj(grid, box, system)
    differ = (found != expected).any(axis=-1)
    assert differ.mean() < 1e-4  # on the very edge of two pixels, by the last digit


def at(transform: Any, x: float, y: float) -> tuple[float, float]:
    """Where a place in a picture lies (affine 2 and 3 spell it in two ways)."""
    return transform.c + x * transform.a, transform.f + y * transform.e


def gdal_xml(page: Served, system: str, box: tuple[float, float, float, float]) -> str:
    """The box with x first, as GDAL has it everywhere."""
    left, bottom, right, top = map(repr, box)
    order = "<BBoxOrder>yxYX</BBoxOrder>" if system == "EPSG:4326" else ""
    return (
        f'<GDAL_WMS><Service name="WMS"><Version>1.3.0</Version>'
        f"<ServerUrl>http://127.0.0.1:{page.port}/wms?</ServerUrl><CRS>{system}</CRS>"
        f"<ImageFormat>image/png</ImageFormat><Transparent>TRUE</Transparent>{order}"
        f"<Layers>nowcast</Layers><Styles></Styles></Service><DataWindow>"
        f"<UpperLeftX>{left}</UpperLeftX><UpperLeftY>{top}</UpperLeftY>"
        f"<LowerRightX>{right}</LowerRightX><LowerRightY>{bottom}</LowerRightY>"
        f"<SizeX>{WIDE}</SizeX><SizeY>{HIGH}</SizeY></DataWindow><Projection>{system}</Projection>"
        f"<BandsCount>4</BandsCount><BlockSizeX>256</BlockSizeX><BlockSizeY>256</BlockSizeY>"
        f"</GDAL_WMS>"
    )


GDAL = [
    (name, system)
    for name, system in SYSTEMS
    if system in ("EPSG:4326", "EPSG:3857") and name != "about the pole"
]


def read_by_gdal(what: str, bands: bool = True) -> tuple[Rgba, Any, str]:
    """Pixels `(H, W, C)`, the transform and the system."""
    rasterio = pytest.importorskip("rasterio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.Env(GDAL_HTTP_TIMEOUT="30"), rasterio.open(what) as opened:
            pixels = np.moveaxis(opened.read(), 0, -1) if bands else np.zeros((1, 1, 4), np.uint8)
            return pixels, opened.transform, str(opened.crs)


@pytest.mark.parametrize(("name", "system"), GDAL)
def test_gdal_places_it(page: Served, name: str, system: str) -> None:
    grid = show(page, name)
    layer = owslib_of(page)["nowcast"]
    box = next(box for box in layer.crs_list if box[4] == system)
    pixels, transform, crs = read_by_gdal(gdal_xml(page, system, tuple(map(float, box[:4]))))
    assert crs == system
    east, north = at(transform, *bright(pixels))
    assert off_by(grid, system, east, north) < 0.5


def test_gdal_reads_the_capabilities(page: Served) -> None:
    """Its own list of what there is; it asks for EPSG:4326 with the latitude first."""
    rasterio = pytest.importorskip("rasterio")
    grid = show(page, "polar stereographic, as in Finland")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = f"http://127.0.0.1:{page.port}/wms?FORMAT=image/png&TRANSPARENT=TRUE"
        with rasterio.open(f"WMS:{asked}") as opened:
            found = [one for one in opened.subdatasets if "LAYERS=nowcast" in one]
    assert found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(found[0]) as opened:
            assert opened.crs is not None
            system = opened.crs.to_string()
            # The whole is as fine as GDAL likes; an overview is enough.
            pixels = np.moveaxis(opened.read(out_shape=(opened.count, HIGH, WIDE)), 0, -1)
            finer, transform = (opened.width / WIDE, opened.height / HIGH), opened.transform
    x, y = bright(pixels)
    east, north = at(transform, x * finer[0], y * finer[1])
    assert off_by(grid, system, east, north) < 0.5


def test_tiles_lie_there_too(page: Served) -> None:
    """XYZ tiles, by GDAL's own reader of them."""
    grid = show(page, "polar stereographic, as of KNMI")
    half = 20037508.342789244
    what = (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:{page.port}'
        "/tiles/nowcast/${z}/${x}/${y}.png</ServerUrl></Service><DataWindow>"
        f"<UpperLeftX>-{half}</UpperLeftX><UpperLeftY>{half}</UpperLeftY>"
        f"<LowerRightX>{half}</LowerRightX><LowerRightY>-{half}</LowerRightY>"
        "<TileLevel>9</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY>"
        "<YOrigin>top</YOrigin></DataWindow><Projection>EPSG:3857</Projection>"
        "<BlockSizeX>256</BlockSizeX><BlockSizeY>256</BlockSizeY><BandsCount>4</BandsCount>"
        "</GDAL_WMS>"
    )
    rasterio = pytest.importorskip("rasterio")
    onto = pyproj.Transformer.from_crs(grid.crs_wkt, 3857, always_xy=True)
    x, y = onto.transform(grid.x[COLUMN], grid.y[ROW])
    with rasterio.open(what) as opened:
        window = opened.window(x - 3e4, y - 3e4, x + 3e4, y + 3e4).round_offsets().round_lengths()
        pixels = np.moveaxis(opened.read(window=window), 0, -1)
        transform = opened.transform
    x, y = bright(pixels)
    east, north = at(transform, x + window.col_off, y + window.row_off)
    assert off_by(grid, "EPSG:3857", east, north) < 0.5


def wmts_near(page: Served, x: float, y: float, cache: Path) -> tuple[Rgba, tuple[float, float]]:
    """Pixels of the WMTS around a place in EPSG:3857, by GDAL's driver, and their corner's place.

    Args:
        page: what it reads.
        x: to the east.
        y: to the north.
        cache: folder of GDAL, which keeps tiles.
    """
    rasterio = pytest.importorskip("rasterio")
    asked = f"http://127.0.0.1:{page.port}/wmts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            rasterio.Env(GDAL_DEFAULT_WMS_CACHE_PATH=str(cache)),
            rasterio.open(f"WMTS:{asked},layer=nowcast,zoom_level=9") as opened,
        ):
            assert opened.crs.to_epsg() == 3857
            left, bottom, right, top = opened.bounds
            assert left <= x <= right
            assert bottom <= y <= top
            near = (
                max(left, x - 3e4),
                max(bottom, y - 3e4),
                min(right, x + 3e4),
                min(top, y + 3e4),
            )
            window = opened.window(*near).round_offsets().round_lengths()
            corner = at(opened.transform, window.col_off, window.row_off)
            return np.moveaxis(opened.read(window=window), 0, -1), corner


METRES = 2 * 20037508.342789244 / 256 / 2**9
"""Side of a pixel at zoom 9."""


@pytest.mark.parametrize("name", [one for one in PLACES if one != "about the pole"])
def test_gdal_places_the_wmts(page: Served, name: str, tmp_path: Path) -> None:
    """By what it says of itself, as GDAL's driver reads it."""
    grid = show(page, name)
    onto = pyproj.Transformer.from_crs(grid.crs_wkt, 3857, always_xy=True)
    place = onto.transform(grid.x[COLUMN], grid.y[ROW])
    pixels, (left, top) = wmts_near(page, *place, tmp_path)
    x, y = bright(pixels)
    assert off_by(grid, "EPSG:3857", left + x * METRES, top - y * METRES) < 0.5


def test_gdal_keeps_no_tile_of_an_older_nowcast(page: Served, tmp_path: Path) -> None:
    grid = show(page, "polar stereographic, as of KNMI")
    onto = pyproj.Transformer.from_crs(grid.crs_wkt, 3857, always_xy=True)
    place = onto.transform(grid.x[COLUMN], grid.y[ROW])
    bright(wmts_near(page, *place, tmp_path)[0])
    frames = np.full_like(nowcast_on(grid).frames, RAIN)
    page.hub.views[""].nowcast(nowcast_on(grid, later=1, frames=frames))
    now = wmts_near(page, *place, tmp_path)[0]
    assert (now[..., :3] == colour_of(RAIN)).all(axis=-1).any()
    assert not (now[..., :3] == colour_of(BRIGHT)).all(axis=-1).any()


def test_a_bright_pixel_is_not_the_others() -> None:
    assert colour_of(BRIGHT) != colour_of(RAIN)
