"""How a stream is, in one word: what `/healthz` answers, and the page's mark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stpl_runtime.links.health import HealthNow

Word = Literal["ok", "degraded", "stale", "down"]

WORDS: tuple[Word, ...] = ("ok", "degraded", "stale", "down")
"""From good to bad."""
SERVING = ("ok", "degraded")
"""Those that `/healthz` answers with 200; the others with 503."""
STALE_CADENCES = 3.0
"""Cadences without a frame after which a stream is stale."""
_LEAST_STALE_S = 5.0


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


def judge(
    health: HealthNow,
    *,
    arrival_age_s: float | None,
    stale_s: float | None,
    alarm: bool,
    filled_frames: int,
    troubles: tuple[str, ...],
) -> StreamVerdict:
    """One stream's state.

    Args:
        health: of its source.
        arrival_age_s: since the newest frame came; None: none came yet.
        stale_s: from `stale_after_s`.
        alarm: whether its skill is below persistence.
        filled_frames: frames of its newest nowcast's past that were not observed.
        troubles: of its sinks with the newest nowcasts.
    """
    if health.state == "down":
        return StreamVerdict("down", (f"source down: {health.reason}",))
    stale = _stale(health, arrival_age_s, stale_s)
    if stale:
        return StreamVerdict("stale", (stale,))
    reasons = list(troubles)
    if alarm:
        reasons.insert(0, "forecasts are worse than persistence")
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
