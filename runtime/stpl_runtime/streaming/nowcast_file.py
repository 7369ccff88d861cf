"""A nowcast as arrays and JSON, for a file that a restart reads; and back, with every check.

What comes back is shown to people: whatever does not fit is refused, as in `state_checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.grid import Grid
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.timing import utc_text

if TYPE_CHECKING:
    from stpl_core.bundle import Manifest

Arrays = dict[str, NDArray[Any]]
_MASKS = ("observed", "context_observed")
_TEXTS = ("units", "quantity", "stream", "source_id", "standard_name")


def nowcast_facts(nowcast: Nowcast, arrays: Arrays) -> dict[str, Any]:
    """What is no array, for JSON; `arrays` gets the others."""
    arrays["frames"], arrays["context"] = nowcast.frames, nowcast.context
    for name in _MASKS:
        mask = getattr(nowcast, name)
        if mask is not None:
            arrays[name] = mask
    return {
        **{name: getattr(nowcast, name) for name in _TEXTS},
        "low": nowcast.low,
        "high": nowcast.high,
        "issue_time": None if nowcast.issue_time is None else utc_text(nowcast.issue_time),
        "cadence_s": nowcast.cadence_s,
        "context_times": [utc_text(time) for time in nowcast.context_times],
        "context_fill": list(nowcast.context_fill),
        "made_by": nowcast.made_by,
        "latency_ms": nowcast.latency_ms,
        "grid": None if nowcast.grid is None else asdict(nowcast.grid),
        "notes": dict(nowcast.notes),
    }


def nowcast_from(
    facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], manifest: Manifest, horizon: int
) -> Nowcast:
    """The nowcast that `nowcast_facts` took apart.

    Args:
        facts: of JSON.
        arrays: beside them.
        manifest: of the bundle that is to have made it, on the grid of the stream.
        horizon: K.

    Raises:
        ValueError, TypeError, LookupError: it does not fit.
    """
    size = manifest.frame[1:]
    frames = _array(arrays, "frames", (horizon, *manifest.frame), np.float32)
    context = _array(arrays, "context", (manifest.context, *manifest.frame), np.float32)
    if not np.isfinite(frames).all():
        raise ValueError("the forecast is not finite")
    texts: dict[str, Any] = {name: facts[name] for name in _TEXTS}
    notes, made_by = facts["notes"], facts["made_by"]
    for text in (*texts.values(), *notes, *notes.values(), *made_by, *made_by.values()):
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is no text")
    fill = tuple(facts["context_fill"])
    if not all(how in ("", "held", "bridged") for how in fill):
        raise ValueError(f"stand-ins {fill}")
    latency, cadence_s = facts["latency_ms"], facts["cadence_s"]
    return Nowcast(
        frames=frames,
        context=context,
        **texts,
        low=_number(facts["low"]),
        high=_number(facts["high"]),
        cadence_s=None if cadence_s is None else _number(cadence_s),
        issue_time=_time(facts["issue_time"]),
        context_times=tuple(map(_time, facts["context_times"])),
        context_fill=fill,
        made_by=dict(made_by),
        latency_ms=None if latency is None else _number(latency),
        grid=_grid(facts["grid"], size),
        notes=dict(notes),
        observed=_mask(arrays, "observed", size),
        context_observed=_mask(arrays, "context_observed", (manifest.context, *size)),
    )


def _array(
    arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], kind: type
) -> NDArray[Any]:
    found = arrays[name]
    if found.shape != shape or found.dtype != kind:
        raise ValueError(f"{name} is {found.dtype} {found.shape}, expected {shape}")
    return found


def _mask(
    arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    return _array(arrays, name, shape, np.bool_) if name in arrays else None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    if not 1 < found.year < 9999:
        raise ValueError(f"the time {text}")
    return found


def _grid(facts: Mapping[str, Any] | None, size: tuple[int, int]) -> Grid | None:
    if facts is None:
        return None
    affine = tuple(_number(value) for value in facts["affine"])
    grid = Grid(**{**facts, "affine": affine})
    if (grid.height, grid.width) != size or len(affine) != 4 or not isinstance(grid.crs_wkt, str):
        raise ValueError("another grid")
    return grid
