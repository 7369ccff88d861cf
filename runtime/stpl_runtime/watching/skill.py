"""Live skill: each nowcast is scored when its truth arrives, beside persistence.

A frame that enters a window is the truth of every earlier nowcast that has a frame for its slot.
Nowcasts with stand-ins among the frames they were made from are counted apart.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from stpl_core.baselines import flow
from stpl_core.codec import Array, FrameCodec
from stpl_core.frames import Frame
from stpl_core.scores.images import Doubles, Mask
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.window import Verdict
from stpl_runtime.timing import time_text
from stpl_runtime.watching.alarm import Alarm, AlarmNow
from stpl_runtime.watching.skill_sums import (
    FLOW,
    WAYS,
    LeadSums,
    LiveScores,
    default_thresholds,
    pair_sums,
)

WINDOW = 288
"""Pairs of each lead time in the rolling scores: a day of frames every 5 minutes."""
BUDGET_BYTES = 256 * 2**20
"""Nowcasts of a stream that wait for their truth take no more; others are not scored."""


@dataclass(frozen=True)
class Pair:
    """One lead time's forecast and what it was about."""

    lead: int
    """1..K."""
    nowcast: Nowcast
    sums: Doubles
    """`(ways, ...)`, see `pair_sums`: of the nowcast, of persistence, of flow if asked for."""

    @property
    def mse(self) -> tuple[float, float]:
        """Squared error of the frame in model units: of the nowcast, of persistence."""
        return float(self.sums[0, 2]), float(self.sums[1, 2])

    @property
    def mse_flow(self) -> float | None:
        """The same of flow; None where it is not asked for."""
        return float(self.sums[2, 2]) if len(self.sums) > 2 else None


@dataclass(frozen=True)
class Verified:
    """A frame that came, and what was forecast of it."""

    stream: str
    truth: Frame
    pairs: tuple[Pair, ...]
    """By rising lead time."""


@dataclass(frozen=True)
class SkillNow:
    """One stream's skill at one moment."""

    rolling: LiveScores
    total: LiveScores
    flagged: LiveScores
    """Of all nowcasts with stand-ins, which the other two leave out."""
    window: int
    unscored: int
    """Nowcasts that were not kept for their truth, for want of memory."""
    alarm: AlarmNow | None
    """None where none was asked for."""

    def as_json(self) -> dict[str, Any]:
        """For the page and `--json`; NaN stays NaN."""
        alarm = self.alarm
        return {
            "window": self.window,
            "unscored": self.unscored,
            "rolling": _scores_json(self.rolling),
            "total": _scores_json(self.total),
            "stand_ins": _scores_json(self.flagged),
            "alarm": None
            if alarm is None
            else {
                "after": alarm.after,
                "standing": alarm.standing,
                "since": None if alarm.since is None else time_text(alarm.since),
                "raised": alarm.raised,
            },
        }


def _scores_json(scores: LiveScores) -> dict[str, Any]:
    per_lead = {
        way: {name: values.tolist() for name, values in found.items()}
        for way, found in scores.per_lead.items()
    }
    frames = [int(count) for count in scores.frames]
    return {"frames": frames, "per_lead": per_lead, "overall": scores.overall}


@dataclass
class _Waiting:
    """A nowcast some of whose frames have no truth yet."""

    nowcast: Nowcast
    issue_time: datetime
    cadence_s: float
    left: set[int]
    """Lead times that were not scored yet."""
    flow: Array | None = None
    """`(K, C, H, W)`, once a frame of it was scored, where it is asked for."""

    def lead(self, time: datetime) -> int:
        """Which of its frames is about `time`; any number, also outside 1..K."""
        steps = (time - self.issue_time).total_seconds() / self.cadence_s
        return math.floor(steps + 0.5)


@dataclass
class _OneStream:
    horizon: int
    observed: LeadSums
    flagged: LeadSums
    alarm: Alarm | None
    waiting: list[_Waiting] = field(default_factory=list)
    unscored: int = 0


class LiveSkill:
    """A watcher that scores. Its methods take as long as the scores: see `background`."""

    def __init__(
        self,
        codec: FrameCodec,
        thresholds: Sequence[float] | None = None,
        *,
        window: int = WINDOW,
        alarm: int | None = None,
        flow: bool = False,
        log: Callable[[str], None] = lambda line: None,
        listen: Callable[[Verified], None] = lambda verified: None,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        """Start with nothing scored.

        Args:
            codec: the bundle's.
            thresholds: of CSI, physical units; None takes those of the unit.
            window: pairs of each lead time in the rolling scores.
            alarm: frames in a row worse than persistence that raise the alarm; None: no alarm.
            flow: score what moves along the optical flow of the context too; needs OpenCV.
            log: given a line when the alarm is raised and when it is cleared.
            listen: given each frame that something had been forecast of.
            budget_bytes: most memory for a stream's nowcasts that wait for their truth.
        """
        self.codec = codec
        self.thresholds = (
            default_thresholds(codec.units) if thresholds is None else tuple(thresholds)
        )
        self.window = window
        self._ways = (*WAYS, FLOW) if flow else WAYS
        self._alarm_after, self._log, self._listen = alarm, log, listen
        self._budget = budget_bytes
        self._streams: dict[str, _OneStream] = {}
        self._lock = threading.Lock()

    def now(self, stream: str = "") -> SkillNow | None:
        """A stream's skill; None before its first nowcast. Any thread may ask."""
        with self._lock:
            one = self._streams.get(stream)
            if one is None:
                return None
            return SkillNow(
                rolling=one.observed.rolling(),
                total=one.observed.total(),
                flagged=one.flagged.total(),
                window=self.window,
                unscored=one.unscored,
                alarm=None if one.alarm is None else one.alarm.now,
            )

    def all(self) -> dict[str, SkillNow]:
        """The skill of every stream that made a nowcast."""
        with self._lock:
            names = list(self._streams)
        every = {name: self.now(name) for name in names}
        return {name: skill for name, skill in every.items() if skill is not None}

    @property
    def alarms(self) -> dict[str, AlarmNow]:
        """The alarms of all streams that have one."""
        with self._lock:
            return {
                name: one.alarm.now for name, one in self._streams.items() if one.alarm is not None
            }

    def nowcast(self, nowcast: Nowcast) -> None:
        """Keep a nowcast until its truth arrives; made anew, it takes the older one's place."""
        if nowcast.issue_time is None or not nowcast.cadence_s:
            return
        with self._lock:
            one = self._stream(nowcast)
            leads = set(range(1, len(nowcast.frames) + 1))
            for old in one.waiting:
                if old.issue_time == nowcast.issue_time:
                    leads = old.left
            # None is later, unless the source's clock was set back: their truth never comes.
            one.waiting = [old for old in one.waiting if old.issue_time < nowcast.issue_time]
            held = sum(self._bytes(waiting.nowcast) for waiting in one.waiting)
            if one.waiting and held + self._bytes(nowcast) > self._budget:
                one.unscored += 1
                return
            one.waiting.append(_Waiting(nowcast, nowcast.issue_time, nowcast.cadence_s, leads))

    def frame(self, frame: Frame, verdict: Verdict, stream: str) -> None:
        """Score what was forecast of a frame that entered the window."""
        if verdict != "used":
            return
        one = self._streams.get(stream)
        if one is None:
            return
        pairs, turn = self._score(one, frame)
        if not pairs:
            return
        self._listen(Verified(stream, frame, pairs))
        if turn:
            assert one.alarm is not None, "an alarm turned"
            name = f"{stream}: " if stream else ""
            since = one.alarm.now
            self._log(
                f"{name}alarm: {since.after} frames in a row were forecast worse than by "
                f"persistence, the last one {time_text(frame.valid_time)}; the stream continues"
                if turn == "raised"
                else f"{name}alarm over: {since.after} frames in a row were forecast no worse "
                f"than by persistence"
            )

    def problem(self, line: str) -> None:
        """Nothing to score."""

    def kept(self, stream: str) -> dict[str, Doubles]:
        """A stream's scores as arrays for a file; empty before its first nowcast."""
        with self._lock:
            one = self._streams.get(stream)
            if one is None:
                return {}
            parts = {"skill": one.observed.kept(), "flagged": one.flagged.kept()}
            limits = np.asarray(self.thresholds, np.float64)
            return {"skill.thresholds": limits} | {
                f"{part}.{name}": array.copy()
                for part, arrays in parts.items()
                for name, array in arrays.items()
            }

    def restore(self, newest: Nowcast, kept: Mapping[str, Doubles]) -> None:
        """Go on from what `kept` gave; scores of other thresholds or of another window are left.

        Args:
            newest: the stream's newest nowcast, which waits for its truth again.
            kept: with arrays of others, too.
        """
        limits = kept.get("skill.thresholds")
        with self._lock:
            one = self._stream(newest)
            if limits is not None and limits.tolist() == list(self.thresholds):
                fresh = [
                    LeadSums(one.horizon, self.thresholds, self.window, self._ways)
                    for _ in range(2)
                ]
                try:
                    for sums, part in zip(fresh, ("skill", "flagged"), strict=True):
                        names = ("total", "newest", "added")
                        sums.restore({name: kept[f"{part}.{name}"] for name in names})
                except (ValueError, KeyError):
                    pass
                else:
                    one.observed, one.flagged = fresh
        self.nowcast(newest)

    def _score(self, one: _OneStream, frame: Frame) -> tuple[tuple[Pair, ...], str]:
        pairs = []
        for waiting in one.waiting:
            lead = waiting.lead(frame.valid_time)
            if lead in waiting.left:
                waiting.left.discard(lead)
                pairs.append(Pair(lead, waiting.nowcast, self._sums(waiting, lead, frame)))
        pairs.sort(key=lambda pair: pair.lead)
        errors, turn = np.zeros(2), ""
        with self._lock:
            for pair in pairs:
                flagged = any(pair.nowcast.context_fill)
                (one.flagged if flagged else one.observed).add(pair.lead, pair.sums)
                errors += 0.0 if flagged else pair.sums[: len(errors), 2]
            one.waiting = [w for w in one.waiting if w.left and not _over(w, frame)]
            clean = any(not any(pair.nowcast.context_fill) for pair in pairs)
            if one.alarm is not None and clean:
                turn = one.alarm.frame(bool(errors[0] > errors[1]), frame.valid_time)
        return tuple(pairs), turn

    def _sums(self, waiting: _Waiting, lead: int, truth: Frame) -> Doubles:
        """Every way on the same pixels: those that were observed then and now."""
        nowcast = waiting.nowcast
        masks = [mask for mask in (nowcast.observed, truth.mask) if mask is not None]
        valid: Mask | None = np.logical_and.reduce(masks) if masks else None  # (H, W)
        guesses = [nowcast.frames[lead - 1], _newest_observed(nowcast)]
        if FLOW in self._ways:
            if waiting.flow is None:
                horizon, units = len(nowcast.frames), self.codec.units
                waiting.flow = flow(nowcast.context[None], horizon, units)[0]
            guesses.append(waiting.flow[lead - 1])
        return np.stack(
            [pair_sums(guess, truth.data, valid, self.codec, self.thresholds) for guess in guesses]
        )

    def _bytes(self, nowcast: Nowcast) -> int:
        frames = nowcast.frames.nbytes
        return frames * (2 if FLOW in self._ways else 1) + nowcast.context.nbytes

    def _stream(self, nowcast: Nowcast) -> _OneStream:
        horizon = len(nowcast.frames)
        one = self._streams.get(nowcast.stream)
        if one is None or one.horizon != horizon:
            one = self._streams[nowcast.stream] = _OneStream(
                horizon,
                LeadSums(horizon, self.thresholds, self.window, self._ways),
                LeadSums(horizon, self.thresholds, self.window, self._ways),
                None if self._alarm_after is None else Alarm(self._alarm_after),
            )
        return one


def _newest_observed(nowcast: Nowcast) -> Array:
    """The frame that persistence repeats: the newest one of the context that is no stand-in."""
    at = len(nowcast.context) - 1
    while at > 0 and at < len(nowcast.context_fill) and nowcast.context_fill[at]:
        at -= 1
    newest: Array = nowcast.context[at]
    return newest


def _over(waiting: _Waiting, frame: Frame) -> bool:
    """Whether no frame that may still come is about it: none is later than a whole window."""
    newest = len(waiting.nowcast.frames) + len(waiting.nowcast.context)
    return waiting.lead(frame.valid_time) > newest
