"""What every georeferenced output carries of itself: how it was made, and from what."""

from __future__ import annotations

from datetime import datetime, timezone

from stpl_runtime.nowcast import Nowcast
from stpl_runtime.timing import utc_text


def facts(nowcast: Nowcast) -> dict[str, str]:
    """CF's global attributes, and the tags of a GeoTIFF.

    source         engine, model and checksum of the bundle
    input          where the newest frame came from
    input_times    when each frame of the context was observed, or stands for
    filled_times   those of them that were not observed
    stand_ins      of each frame of the context: observed, held or bridged
    stream         which of several streams
    and the notes of the frames: institution, licence, attribution
    """
    made = nowcast.made_by
    found = {
        "source": ", ".join(f"{key} {value}" for key, value in made.items()) or "stpl-deploy",
        "history": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ} stpl-deploy",
        "input": nowcast.source_id,
        **nowcast.notes,
    }
    if nowcast.stream:
        found["stream"] = nowcast.stream
    if nowcast.context_times:
        found["input_times"] = _texts(nowcast.context_times)
    if nowcast.context_fill:
        found["stand_ins"] = " ".join(kind or "observed" for kind in nowcast.context_fill)
    if nowcast.context_times and any(nowcast.context_fill):
        found["filled_times"] = _texts(filled_times(nowcast))
    return found


def filled_times(nowcast: Nowcast) -> tuple[datetime, ...]:
    """The times of the context's frames that were not observed."""
    pairs = zip(nowcast.context_times, nowcast.context_fill, strict=False)
    return tuple(time for time, kind in pairs if kind)


def _texts(times: tuple[datetime, ...]) -> str:
    return " ".join(map(utc_text, times))
