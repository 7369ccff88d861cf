"""A stream that runs, as OWSLib sees it: from frames with a place to the model's own values."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("fastapi", "uvicorn", "pyproj", "owslib.wms"):
    pytest.importorskip(library)

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray
from owslib.wms import WebMapService
from PIL import Image

from stpl_core.bundle import Bundle
from stpl_core.drawing.colours import colour_map
from stpl_core.grid import Grid
from stpl_runtime.engine import Session
from tests.runtime.conftest import make_frame
from tests.runtime.page.serving import Served, serve

GRID = Grid((3.0, 54.0, 0.25, -0.25), 16, 16, pyproj.CRS("OGC:CRS84").to_wkt(), True)


@pytest.fixture
def live(bundle: Bundle, session: Session) -> Iterator[Served]:
    with serve(bundle, session) as page:
        for slot in range(4):
            page.taps[0].give(replace(make_frame(slot), grid=GRID))
        page.settle(1)
        yield page


def drawn(service: Any, time: str | None) -> NDArray[np.uint8]:
    answer = service.getmap(
        layers=["nowcast"], srs="EPSG:4326", bbox=GRID.corners, size=(16, 16),
        format="image/png", time=time,
    )  # fmt: skip
    return np.asarray(Image.open(io.BytesIO(answer.read())))


def test_each_new_nowcast_is_seen(live: Served) -> None:
    seen = []
    for made in (1, 2):
        nowcast = live.hub.views[""].latest
        assert nowcast is not None
        service = WebMapService(f"http://127.0.0.1:{live.port}/wms", version="1.3.0")
        times = service["nowcast"].timepositions
        seen.append(times)
        colours = colour_map(nowcast.units, nowcast.low, nowcast.high)
        for n, time in enumerate([*times, None]):
            frame = nowcast.frames[0 if time is None else n, 0]
            assert (drawn(service, time) == colours.picture(frame)).all(), time
        place = "coords=POINT(3.3%2053.6)&parameter-name=nowcast,observed"
        status, _, body = live.get(f"/edr/collections/nowcast/position?{place}")
        assert status == 200
        ranges = json.loads(body)["ranges"]
        values = [np.float32(value) for value in ranges["nowcast"]["values"][-3:]]
        assert values == list(nowcast.frames[:, 0, 1, 1])
        past = [np.float32(value) for value in ranges["observed"]["values"][:4]]
        assert past == list(nowcast.context[:, 0, 1, 1])
        live.taps[0].give(replace(make_frame(3 + made), grid=GRID))
        live.settle(1 + made)
    assert seen[0][1:] == seen[1][:-1], "one slot later"
