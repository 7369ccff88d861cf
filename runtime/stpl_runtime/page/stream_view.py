"""What the page knows of one stream: its newest frames, nowcasts and checks, as facts and PNGs.

Pictures are drawn when a browser asks for one, so that a page nobody looks at costs nothing. Their
addresses hold the time they are of and never show anything else, so browsers may keep them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import numpy as np

from stpl_core.bundle import Manifest
from stpl_core.drawing.colours import STANDARD
from stpl_core.frames import Frame, FrameShape
from stpl_core.grid import Grid
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.window import Verdict
from stpl_runtime.page.pictures import (
    chance_legend,
    chance_png,
    difference_legend,
    difference_png,
    frame_png,
    legends,
)
from stpl_runtime.page.points import point_of_frames, point_of_nowcast
from stpl_runtime.timing import time_text, utc_now, utc_text
from stpl_runtime.watching.skill import Verified

SLOTS = 60
"""Slots of the strip that shows gaps."""
_KEPT_BYTES = 64 * 2**20
"""Nowcasts that pages may still ask pictures of take no more, apart from the newest one."""
_KEPT = 4
"""And are no more than this."""
_CHECKS = 3
_CACHED = 256
"""PNGs that are kept."""
_LATENCIES = 60
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the classes of latency."""


@dataclass(frozen=True)
class Look:
    """What is shown, from the bundle."""

    model: str
    quantity: str
    units: str
    low: float
    high: float
    context: int
    horizon: int
    shape: FrameShape

    def as_json(self) -> dict[str, Any]:
        """For the page."""
        look = (self.units, self.low, self.high)
        return {
            "model": self.model,
            "quantity": self.quantity,
            "units": self.units,
            "context": self.context,
            "horizon": self.horizon,
            "width": self.shape[2],
            "height": self.shape[1],
            "legends": legends(*look),
            "chances": chance_legend(),
            "difference": difference_legend(*look),
        }


def look_of(manifest: Manifest, horizon: int) -> Look:
    """What is shown of a bundle's nowcasts."""
    codec = manifest.codec
    return Look(
        model=manifest.model.name,
        quantity=codec.quantity,
        units=codec.units,
        low=codec.low,
        high=codec.high,
        context=manifest.context,
        horizon=horizon,
        shape=manifest.frame,
    )


@dataclass(frozen=True)
class Arrived:
    """What is known of the newest frame that entered the window."""

    valid_time: datetime
    seen: float
    """time.monotonic() when the stream reported it."""
    lag_s: float
    """Seconds from its valid time to that moment."""


@dataclass
class Latency:
    """A histogram of seconds from a frame to its nowcast, and the newest ones."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total_s: float = 0.0
    newest_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))

    def add(self, latency_ms: float) -> None:
        """A nowcast was made."""
        self.counts[int(np.searchsorted(BUCKETS_S, latency_ms / 1e3))] += 1
        self.total_s += latency_ms / 1e3
        self.newest_ms.append(latency_ms)


class StreamView:
    """One stream. One thread adds to it, others ask."""

    def __init__(self, look: Look) -> None:
        """Start with nothing."""
        self.look = look
        self.latency = Latency()
        self.arrived: Arrived | None = None
        self.version = 0
        """Rises with everything that is added."""
        self._lock = threading.Lock()
        self._serial = 0
        self._observed: OrderedDict[datetime, tuple[str, Frame]] = OrderedDict()
        self._times: deque[datetime] = deque(maxlen=4 * SLOTS)
        self._fills: OrderedDict[datetime, str] = OrderedDict()
        self._latest: tuple[str, Nowcast] | None = None
        self._kept: OrderedDict[str, Nowcast] = OrderedDict()
        self._newest_check: tuple[str, Verified] | None = None
        self._checks: OrderedDict[str, Verified] = OrderedDict()
        self._pngs: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self.is_restored = False
        """Whether what it shows was made before a restart, and nothing came since."""

    @property
    def latest(self) -> Nowcast | None:
        """The newest nowcast."""
        return None if self._latest is None else self._latest[1]

    def restore(self, nowcast: Nowcast, arrived_s_ago: float) -> None:
        """Show a nowcast from before a restart until there is a newer one.

        Args:
            nowcast: the newest one.
            arrived_s_ago: since its newest frame came.
        """
        assert nowcast.issue_time is not None, "a stream's frames have times"
        lag_s = (utc_now() - nowcast.issue_time).total_seconds() - arrived_s_ago
        with self._lock:
            self.version += 1
            self.is_restored = True
            self._latest = (self._key(nowcast.issue_time), nowcast)
            fills = nowcast.context_fill or ("",) * len(nowcast.context_times)
            for time, how in zip(nowcast.context_times, fills, strict=True):
                if how:
                    self._fills[time] = how
                else:
                    self._times.append(time)
            self.arrived = Arrived(nowcast.issue_time, monotonic() - arrived_s_ago, lag_s)

    def frame(self, frame: Frame, verdict: Verdict, now: datetime) -> None:
        """A frame was put into the window, or not."""
        if verdict not in ("used", "duplicate"):
            return
        with self._lock:
            self.version += 1
            if verdict == "duplicate" and frame.valid_time not in self._observed:
                return
            if self._is_new_line(frame.valid_time):
                self.arrived = None
                for known in (self._observed, self._times, self._fills):
                    known.clear()
            self.is_restored = False
            self._observed[frame.valid_time] = (self._key(frame.valid_time), frame)
            if verdict == "duplicate":  # a correction
                return
            self._times.append(frame.valid_time)
            for old in sorted(self._observed)[: -(self.look.context + 2)]:
                del self._observed[old]
            if self.arrived is None or frame.valid_time > self.arrived.valid_time:
                lag_s = (now - frame.valid_time).total_seconds()
                self.arrived = Arrived(frame.valid_time, monotonic(), lag_s)

    def _is_new_line(self, time: datetime) -> bool:
        """Whether the source's clock was set back: no window takes a frame that is so late."""
        cadence_s = None if self._latest is None else self._latest[1].cadence_s
        if self.arrived is None or not cadence_s:
            return False
        late_s = (self.arrived.valid_time - time).total_seconds()
        return late_s >= self.look.context * cadence_s

    def nowcast(self, nowcast: Nowcast) -> None:
        """A nowcast was made."""
        assert nowcast.issue_time is not None, "a stream's frames have times"
        with self._lock:
            self.version += 1
            self.is_restored = False
            self._latest = (self._key(nowcast.issue_time), nowcast)
            if nowcast.latency_ms is not None:
                self.latency.add(nowcast.latency_ms)
            for time, how in zip(nowcast.context_times, nowcast.context_fill, strict=False):
                if how:
                    self._fills[time] = how
            while len(self._fills) > SLOTS:
                self._fills.popitem(last=False)

    def verified(self, verified: Verified) -> None:
        """A frame was compared with what had been forecast of it."""
        with self._lock:
            self.version += 1
            self._newest_check = (self._key(verified.truth.valid_time), verified)

    def facts(self, root: str) -> dict[str, Any]:
        """For the page; what it names can be asked for from now on.

        Args:
            root: under which the pictures' addresses are, with a slash at its end.
        """
        with self._lock:
            self._keep()
            cadence = self._latest[1].cadence_s if self._latest else None
            return {
                "observed": [
                    {"time": utc_text(time), "url": f"{root}observed/{key}.png"}
                    for time, (key, _) in sorted(self._observed.items())
                ],
                "nowcast": None if self._latest is None else self._nowcast(*self._latest, root),
                "check": None
                if self._newest_check is None
                else self._check(*self._newest_check, root),
                "slots": self._slots(cadence),
                "latencies_ms": [round(value, 2) for value in self.latency.newest_ms],
            }

    @property
    def grid(self) -> Grid | None:
        """Of the newest frames; None where it is not known."""
        with self._lock:
            if self._latest is not None:
                return self._latest[1].grid
            newest = max(self._observed, default=None)
            return None if newest is None else self._observed[newest][1].grid

    def point(self, key: str, x: int, y: int) -> dict[str, Any] | None:
        """A pixel through the frames of the nowcast `key` that `facts` gave.

        Before the first nowcast the key is `observed`. None: it is gone, or the pixel is outside.
        """
        with self._lock:
            nowcast = self._kept.get(key)
            frames = [frame for _, (_, frame) in sorted(self._observed.items())]
        if nowcast is not None:
            return point_of_nowcast(nowcast, x, y)
        return point_of_frames(frames, x, y) if key == "observed" else None

    def png(self, address: str, palette: str = STANDARD) -> bytes | None:
        """The picture at an address that `facts` gave, without the root; None: it is gone."""
        cached = (address, palette)
        with self._lock:
            found = self._pngs.get(cached)
            draw = None if found is not None else self._drawing(address, palette)
        if found is not None or draw is None:
            return found
        made = draw()
        with self._lock:
            self._pngs[cached] = made
            while len(self._pngs) > _CACHED:
                self._pngs.popitem(last=False)
        return made

    def _key(self, time: datetime) -> str:
        """Names what is of a time; differs for what replaces it."""
        self._serial += 1
        return f"{time_text(time)}-{self._serial}"

    def _keep(self) -> None:
        """Keep what pages know of, and no more than a few of them."""
        if self._latest is not None:
            key, nowcast = self._latest
            self._kept[key] = nowcast
            size = nowcast.frames.nbytes + nowcast.context.nbytes
            size += 0 if nowcast.chances is None else nowcast.chances.values.nbytes
            most = max(1, min(_KEPT, _KEPT_BYTES // size))
            while len(self._kept) > most:
                self._kept.popitem(last=False)
        if self._newest_check is not None:
            key, verified = self._newest_check
            self._checks[key] = verified
            while len(self._checks) > _CHECKS:
                self._checks.popitem(last=False)

    def _nowcast(self, key: str, nowcast: Nowcast, root: str) -> dict[str, Any]:
        past = []
        for n, time in enumerate(nowcast.context_times):
            how = nowcast.context_fill[n] if n < len(nowcast.context_fill) else ""
            seen = None if how else self._observed.get(time)
            url = f"observed/{seen[0]}.png" if seen else f"context/{key}/{n}.png"
            steps = n + 1 - len(nowcast.context)
            text = "now" if steps == 0 else nowcast.lead_text(steps)
            past.append({"time": utc_text(time), "text": text, "url": root + url, "stand_in": how})
        thresholds = () if nowcast.chances is None else nowcast.chances.thresholds
        ahead = [
            {
                "time": utc_text(time),
                "text": nowcast.lead_text(k + 1),
                "url": f"{root}forecast/{key}/{k + 1}.png",
                "chances": [f"{root}chance/{key}/{k + 1}/{q}.png" for q in range(len(thresholds))],
            }
            for k, time in enumerate(nowcast.valid_times)
        ]
        assert nowcast.issue_time is not None, "see `nowcast`"
        return {
            "key": key,
            "issue_time": utc_text(nowcast.issue_time),
            "cadence_s": nowcast.cadence_s,
            "latency_ms": nowcast.latency_ms,
            "source": nowcast.source_id,
            "made_by": nowcast.made_by,
            "notes": dict(nowcast.notes),
            "is_restored": self.is_restored,
            "thresholds": list(thresholds),
            "past": past,
            "ahead": ahead,
        }

    def _check(self, key: str, verified: Verified, root: str) -> dict[str, Any]:
        leads = {}
        for pair in verified.pairs:
            assert pair.nowcast.issue_time is not None, "see `nowcast`"
            at = f"{root}check/{key}/{pair.lead}"
            ours, theirs = pair.mse
            leads[str(pair.lead)] = {
                "issue_time": utc_text(pair.nowcast.issue_time),
                "text": pair.nowcast.lead_text(pair.lead),
                "stand_ins": any(pair.nowcast.context_fill),
                "forecast": f"{at}/forecast.png",
                "difference": f"{at}/difference.png",
                "mse": ours,
                "mse_persistence": theirs,
                "mse_flow": pair.mse_flow,
            }
        return {
            "time": utc_text(verified.truth.valid_time),
            "truth": f"{root}check/{key}/0/truth.png",
            "leads": leads,
        }

    def _slots(self, cadence_s: float | None) -> list[dict[str, str]]:
        """The newest slots, oldest first: `used`, `held`, `bridged` or `missing`."""
        if self.arrived is None or not cadence_s:
            return []
        newest = self.arrived.valid_time

        def back(time: datetime) -> int:
            return round((newest - time).total_seconds() / cadence_s)

        fates = {back(time): how for time, how in self._fills.items()}
        fates.update((back(time), "used") for time in self._times)
        count = min(SLOTS, 1 + max(back(time) for time in self._times))
        return [
            {
                "time": utc_text(newest - timedelta(seconds=n * cadence_s)),
                "fate": fates.get(n, "missing"),
            }
            for n in range(count - 1, -1, -1)
        ]

    def _drawing(self, address: str, palette: str) -> Callable[[], bytes] | None:
        """How the picture at an address is drawn; None where there is none."""
        kind, *parts = address.removesuffix(".png").split("/")
        look = self.look
        colours = (look.units, look.low, look.high, palette)
        if kind == "observed" and len(parts) == 1:
            for key, frame in self._observed.values():
                if key == parts[0]:
                    return lambda: frame_png(frame.data, frame.mask, *colours)
        if kind in ("context", "forecast") and len(parts) == 2 and parts[0] in self._kept:
            nowcast, place = self._kept[parts[0]], _number(parts[1])
            frames = nowcast.context if kind == "context" else nowcast.frames
            at = place if kind == "context" else place - 1
            if 0 <= at < len(frames):
                steps = at + 1 if kind == "forecast" else at + 1 - len(frames)
                observed = nowcast.observed_in(steps)
                return lambda: frame_png(frames[at], observed, *colours)
        if kind == "chance" and len(parts) == 3 and parts[0] in self._kept:
            return _chance_drawing(self._kept[parts[0]], _number(parts[1]), _number(parts[2]))
        if kind == "check" and len(parts) == 3 and parts[0] in self._checks:
            lead = _number(parts[1])
            return self._check_drawing(self._checks[parts[0]], lead, parts[2], palette)
        return None

    def _check_drawing(
        self, verified: Verified, lead: int, what: str, palette: str
    ) -> Callable[[], bytes] | None:
        colours = (self.look.units, self.look.low, self.look.high)
        truth = verified.truth
        if what == "truth":
            return lambda: frame_png(truth.data, truth.mask, *colours, palette)
        pair = next((pair for pair in verified.pairs if pair.lead == lead), None)
        if pair is None:
            return None
        forecast, seen = pair.nowcast.frames[lead - 1], pair.nowcast.observed
        if what == "forecast":
            return lambda: frame_png(forecast, seen, *colours, palette)
        masks = [mask for mask in (seen, truth.mask) if mask is not None]
        valid = np.logical_and.reduce(masks) if masks else None
        return lambda: difference_png(forecast, truth.data, valid, *colours)


def _chance_drawing(nowcast: Nowcast, lead: int, threshold: int) -> Callable[[], bytes] | None:
    """Of one threshold at a lead time; None where there is none."""
    chances = nowcast.chances
    if chances is None or not 1 <= lead <= len(nowcast.frames):
        return None
    if not 0 <= threshold < len(chances.thresholds):
        return None
    return lambda: chance_png(chances.values[lead - 1, threshold], nowcast.observed)


def _number(text: str) -> int:
    """A whole number of an address; -1 where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else -1
