"""How a stream is, in one word: what `/healthz` answers, and the page's mark."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from stpl_runtime.links.health import HealthNow
from stpl_runtime.timing import utc_text

Word = Literal["ok", "degraded", "stale", "down"]

WORDS: tuple[Word, ...] = ("ok", "degraded", "stale", "down")
"""From good to bad."""
SERVING = ("ok", "degraded")
"""Those that `/healthz` answers with 200; the others with 503."""
STALE_CADENCES = 3.0
"""Cadences without a frame after which a stream is stale."""
_LEAST_STALE_S = 5.0
OLD_CADENCES, _LEAST_OLD_S = 6.0, 900.0
"""Data that is older than so many cadences, and than a quarter of an hour, is no longer live."""
_COUNTED_YEAR = 1971
"""Times before it are counted from 1970, not observed."""


@dataclass(frozen=True)
class StreamVerdict:
    """One stream's state, and why."""

    word: Word
    reasons: tuple[str, ...] = ()
    """Empty where it is ok."""


def stale_after_s(stated: float | None, cadence_s: float | None) -> float | None:
    """Seconds without a frame after which a stream is stale; None where it is not known yet."""
    if stated is not None:
        return stated
    return None if cadence_s is None else max(_LEAST_STALE_S, STALE_CADENCES * cadence_s)


def old_after_s(stated: float | None, cadence_s: float | None) -> float | None:
    """How old the newest frame's data may be, seconds; None where there is no limit.

    Args:
        stated: by the user; 0: by the cadence; None: no limit.
        cadence_s: seconds between frames; None: not known yet.
    """
    if stated is None or stated > 0:
        return stated
    return None if cadence_s is None else max(_LEAST_OLD_S, OLD_CADENCES * cadence_s)


def old_data(valid_time: datetime, now: datetime, most_s: float | None) -> str:
    """What is to be said of data that is too old; empty where it is not."""
    age_s = (now - valid_time).total_seconds()
    if most_s is None or age_s <= most_s or valid_time.year < _COUNTED_YEAR:
        return ""
    return f"the newest frame was observed {span_text(age_s)} ago, {utc_text(valid_time)}"


def span_text(seconds: float) -> str:
    """A length of time in the largest unit that it has two of, such as `90 min` or `16 years`."""
    units = (("years", 31557600), ("days", 86400), ("h", 3600), ("min", 60))
    name, size = next(((n, s) for n, s in units if seconds >= 2 * s), ("s", 1))
    return f"{seconds / size:.0f} {name}"


def judge(
    health: HealthNow,
    *,
    arrival_age_s: float | None,
    stale_s: float | None,
    old: str = "",
    is_restored: bool = False,
    alarm: bool,
    filled_frames: int,
    troubles: tuple[str, ...],
) -> StreamVerdict:
    """One stream's state.

    Args:
        health: of its source.
        arrival_age_s: since the newest frame came; None: none came yet.
        stale_s: from `stale_after_s`.
        old: from `old_data`.
        is_restored: what is shown was made before a restart.
        alarm: whether its skill is below persistence.
        filled_frames: frames of its newest nowcast's past that were not observed.
        troubles: of its sinks with the newest nowcasts.
    """
    if health.state == "down":
        return StreamVerdict("down", (f"source down: {health.reason}",))
    stale = _stale(health, arrival_age_s, stale_s) or old
    if stale:
        return StreamVerdict("stale", (stale,))
    reasons = list(troubles)
    if alarm:
        reasons.insert(0, "forecasts are worse than persistence")
    if is_restored:
        reasons.append("what is shown was made before the restart; no frame has come since")
    if filled_frames:
        frames = "a frame that was" if filled_frames == 1 else f"{filled_frames} frames that were"
        reasons.append(f"the newest nowcast stands on {frames} not observed")
    return StreamVerdict("degraded" if reasons else "ok", tuple(reasons))


def _stale(health: HealthNow, arrival_age_s: float | None, stale_s: float | None) -> str:
    if health.state == "ended":
        return "the source ended"
    if arrival_age_s is None:
        return "no frame has come yet"
    if stale_s is not None and arrival_age_s > stale_s:
        return f"no frame for {arrival_age_s:.0f} s"
    return ""


def worst(verdicts: list[StreamVerdict]) -> Word:
    """The worst of several streams; `down` where there is none."""
    places = [WORDS.index(verdict.word) for verdict in verdicts]
    return WORDS[max(places)] if places else "down"
