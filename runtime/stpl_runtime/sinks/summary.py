"""A nowcast in words and numbers: the JSON of JSON lines, webhooks and MQTT."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import KeepsFiles
from stpl_runtime.sinks.facts import filled_times
from stpl_runtime.timing import utc_text


def summary(nowcast: Nowcast, beside: tuple[KeepsFiles, ...] = ()) -> dict[str, Any]:
    """What a program wants to know of a nowcast without opening it.

    Args:
        nowcast: one nowcast.
        beside: the sinks that write it to files; these may come a moment later.

    Returns:
        name, stream, issue_time, cadence_s, quantity, standard_name, units;
        leads: of each predicted frame step, valid_time, lead_s, and min, mean and max of the
        pixels that were observed (null where none was), and where chances were asked for
        chances: for each threshold, mean and max of the chance to reach it;
        observed_share, 0 to 1; input_times;
        stand_ins: of each frame of the context `observed`, `held` or `bridged`; filled_times;
        latency_ms, made_by, source_id, notes, files. Times are UTC text, or null without times.
    """
    times = [utc_text(time) for time in nowcast.valid_times]
    lead_s = nowcast.cadence_s if times else None
    observed = nowcast.observed
    had = nowcast.context_fill or ("",) * len(nowcast.context)
    return {
        "name": nowcast.name,
        "stream": nowcast.stream,
        "issue_time": None if nowcast.issue_time is None else utc_text(nowcast.issue_time),
        "cadence_s": nowcast.cadence_s,
        "quantity": nowcast.quantity,
        "standard_name": nowcast.standard_name,
        "units": nowcast.units,
        "leads": [
            {
                "step": k + 1,
                "valid_time": times[k] if times else None,
                "lead_s": None if lead_s is None else lead_s * (k + 1),
                **_numbers(frame if observed is None else frame[:, observed]),
                **_chances(nowcast, k),
            }
            for k, frame in enumerate(nowcast.frames)
        ],
        "observed_share": 1.0 if observed is None else float(observed.mean()),
        "input_times": [utc_text(time) for time in nowcast.context_times],
        "stand_ins": [kind or "observed" for kind in had],
        "filled_times": [utc_text(time) for time in filled_times(nowcast)],
        "latency_ms": nowcast.latency_ms,
        "made_by": dict(nowcast.made_by),
        "source_id": nowcast.source_id,
        "notes": dict(nowcast.notes),
        "files": [path for sink in beside for path in sink.files(nowcast)],
    }


def summary_line(nowcast: Nowcast, beside: tuple[KeepsFiles, ...] = ()) -> bytes:
    """`summary` as one line of JSON, UTF-8, with its newline."""
    document = summary(nowcast, beside)
    return (json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n").encode()


def _chances(nowcast: Nowcast, k: int) -> dict[str, Any]:
    """Of one lead time; nothing where they were not asked for."""
    if nowcast.chances is None:
        return {}
    observed, values = nowcast.observed, nowcast.chances.values[k]  # (Q, C, H, W)
    found = []
    for threshold, chance in zip(nowcast.chances.thresholds, values, strict=True):
        numbers = _numbers(chance if observed is None else chance[:, observed])
        found.append({"threshold": threshold, "mean": numbers["mean"], "max": numbers["max"]})
    return {"chances": found}


def _numbers(values: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, float | None]:
    if values.size == 0:
        return {"min": None, "mean": None, "max": None}
    return {
        "min": float(values.min()),
        "mean": float(values.mean(dtype=np.float64)),
        "max": float(values.max()),
    }
