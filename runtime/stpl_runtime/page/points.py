"""One pixel through time for the page: what was observed there and what is forecast."""

from __future__ import annotations

from typing import Any

import numpy as np

from stpl_core.codec import Array
from stpl_core.errors import MissingExtraError
from stpl_core.frames import Frame
from stpl_core.grid import Grid
from stpl_core.maps.placing import place_of
from stpl_core.scores.images import Mask
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.timing import utc_text


def point_of_nowcast(nowcast: Nowcast, x: int, y: int) -> dict[str, Any] | None:
    """A pixel of the past and of the forecast; None outside of the frames.

    Where chances of events were asked for, each frame ahead has `chances`, one for each threshold,
    of the first channel; null without data.
    """
    first, times = 1 - len(nowcast.context), (*nowcast.context_times, *nowcast.valid_times)
    frames = (*nowcast.context, *nowcast.frames)
    if not _is_inside(frames[0], x, y):
        return None
    return {
        **_where(nowcast.grid, x, y),
        "frames": [
            {
                "step": first + n,
                "time": utc_text(time),
                "values": values_at(frame, nowcast.observed_in(first + n), x, y),
                **_chances(nowcast, first + n, x, y),
            }
            for n, (frame, time) in enumerate(zip(frames, times, strict=True))
        ],
    }


def point_of_frames(frames: list[Frame], x: int, y: int) -> dict[str, Any] | None:
    """A pixel of what was observed before there is a nowcast; None outside, or without a frame."""
    if not frames or not _is_inside(frames[-1].data, x, y):
        return None
    return {
        **_where(frames[-1].grid, x, y),
        "frames": [
            {
                "step": n + 1 - len(frames),
                "time": utc_text(frame.valid_time),
                "values": values_at(frame.data, frame.mask, x, y),
            }
            for n, frame in enumerate(frames)
        ],
    }


def _chances(nowcast: Nowcast, step: int, x: int, y: int) -> dict[str, Any]:
    if nowcast.chances is None or step < 1:
        return {}
    found = nowcast.chances.values[step - 1, :, 0]  # (Q, H, W)
    return {"chances": values_at(found, nowcast.observed_in(step), x, y)}


def _is_inside(frame: Array, x: int, y: int) -> bool:
    _, height, width = frame.shape
    return bool(0 <= y < height and 0 <= x < width)


def _where(grid: Grid | None, x: int, y: int) -> dict[str, Any]:
    """The pixel, and the degrees of its centre where they are known."""
    found: dict[str, Any] = {"x": x, "y": y, "lon": None, "lat": None}
    if grid is None or not grid.crs_wkt:
        return found
    try:
        lon, lat = place_of(grid).degrees(np.array([[x + 0.5, y + 0.5]]))[0].tolist()
    except MissingExtraError:
        return found
    return {**found, "lon": round(lon, 5), "lat": round(lat, 5)} if lon == lon else found


def values_at(frame: Array, observed: Mask | None, x: int, y: int) -> list[float] | None:
    """Each channel, in the fewest digits that are this float32; None where there is no data."""
    values = frame[:, y, x]
    if (observed is not None and not observed[y, x]) or not np.isfinite(values).all():
        return None
    return [float(str(np.float32(value))) for value in values]
