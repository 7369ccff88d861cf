"""Nowcasts as pictures: each frame has the map of its grid."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pyproj = pytest.importorskip("pyproj")

from stpl_core.drawing.colours import colour_map  # noqa: E402
from stpl_core.drawing.maps import with_map  # noqa: E402
from stpl_core.errors import UsageError  # noqa: E402
from stpl_core.grid import Grid  # noqa: E402
from stpl_runtime.nowcast import Nowcast  # noqa: E402
from stpl_runtime.sink import SinkSpec  # noqa: E402
from stpl_runtime.sinks.drawing.animation import pages  # noqa: E402
from stpl_runtime.sinks.drawing.picture import tiles  # noqa: E402
from stpl_runtime.sinks.gif import gif_bytes  # noqa: E402
from stpl_runtime.sinks.png import open_sink, png_bytes  # noqa: E402

GRID = Grid((0.0, 62.0, 0.1, -0.1), 120, 150, pyproj.CRS("OGC:CRS84").to_wkt(), True)
"""The North Sea and what is around it."""


@pytest.fixture
def nowcast() -> Nowcast:
    """A dry day."""
    return Nowcast(
        frames=np.zeros((2, 1, 120, 150), np.float32),
        context=np.zeros((2, 1, 120, 150), np.float32),
        units="mm h-1",
        quantity="rain rate",
        low=0.0,
        high=60.0,
        grid=GRID,
    )


def test_every_tile_has_the_map(nowcast: Nowcast) -> None:
    bare = tiles(replace(nowcast, grid=None))
    for tile, plain in zip(tiles(nowcast), bare, strict=True):
        assert tile.image.size == plain.image.size
        inside = (2, 22, 152, 142)
        expected = with_map(plain.image.crop(inside), GRID)
        assert tile.image.crop(inside).tobytes() == expected.tobytes()
        assert tile.image.tobytes() != plain.image.tobytes()


def test_other_colours(nowcast: Nowcast, tmp_path: Path) -> None:
    wet = replace(nowcast, frames=np.full_like(nowcast.frames, 12.0), grid=None)
    for word in ("cividis", "usa"):
        sink = open_sink(str(tmp_path / word), SinkSpec(options={"colours": word}))
        sink.write(wet)
        sink.close()
        (path,) = (tmp_path / word).glob("*.png")
        drawn = {colour for _, colour in Image.open(path).convert("RGB").getcolors(1 << 20) or ()}
        colours = colour_map("mm h-1", 0.0, 60.0, word)
        assert tuple(colours.picture(np.array([[12.0]]))[0, 0].tolist()) in drawn
    with pytest.raises(UsageError, match="no such colours; expected one of standard, cividis"):
        open_sink(str(tmp_path), SinkSpec(options={"colours": "pink"}))


def test_sheets_and_films_have_it(nowcast: Nowcast) -> None:
    without = replace(nowcast, grid=None)
    sheet = Image.open(io.BytesIO(png_bytes(nowcast)))
    plain = Image.open(io.BytesIO(png_bytes(without)))
    assert sheet.size == plain.size
    changed = (np.asarray(sheet) != np.asarray(plain)).any(axis=2).mean()
    assert 0.03 < changed < 0.5
    for page, bare in zip(pages(nowcast), pages(without), strict=True):
        assert page.image.tobytes() != bare.image.tobytes()
    film = Image.open(io.BytesIO(gif_bytes(nowcast)))
    assert film.size == pages(nowcast)[0].image.size
