"""Where the stream's thread and the page's readers meet: it gets all events, and gives facts."""

from __future__ import annotations

import json
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Any, Protocol

from stpl_core import __version__
from stpl_core.frames import Frame
from stpl_core.json_numbers import finite
from stpl_core.maps.overlay import Shape
from stpl_runtime.links.health import HealthNow
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.window import Verdict
from stpl_runtime.page.maps import Maps
from stpl_runtime.page.stream_view import Look, StreamView
from stpl_runtime.page.verdict import (
    StreamVerdict,
    judge,
    old_after_s,
    old_data,
    stale_after_s,
    worst,
)
from stpl_runtime.streaming.publisher import SinkReport
from stpl_runtime.streaming.report import StreamReport
from stpl_runtime.timing import utc_now, utc_text
from stpl_runtime.watching.skill import LiveSkill, Verified

_PROBLEMS = 30
"""Lines that the page shows."""


class Feed(Protocol):
    """One stream as the page asks it; any thread may."""

    name: str
    """Empty where there is one."""
    source: str
    """What its source is called, without credentials."""

    def health(self) -> HealthNow:
        """Of its source."""
        ...

    def report(self) -> StreamReport:
        """What it did so far."""
        ...

    def frames_to_next(self) -> int:
        """Frames that are to come before the next nowcast."""
        ...

    def is_replay(self) -> bool:
        """Whether its frames are an archive's: how old they are means nothing."""
        ...

    def stage(self) -> str:
        """What is done before frames are read, in words; empty once they are."""
        ...


class Hub:
    """A watcher that keeps what the page shows."""

    def __init__(
        self,
        look: Look,
        feeds: Sequence[Feed],
        skill: LiveSkill,
        *,
        cadence_s: float | None = None,
        stale_s: float | None = None,
        max_age_s: float | None = None,
        missed: Callable[[], int] = lambda: 0,
        overlays: Sequence[Shape] = (),
    ) -> None:
        """Start with nothing to show.

        Args:
            look: of all streams: they share a bundle.
            feeds: the streams, in the order in which the page lists them.
            skill: asked for scores; its `listen` should be `verified`.
            cadence_s: stated; None: taken from the nowcasts.
            stale_s: seconds without a frame after which a stream is stale; None: 3 cadences.
            max_age_s: of the newest frame's data before a stream is stale; 0: by the cadence;
                None: no limit.
            missed: events that those who watch had no time for.
            overlays: a user's own shapes on the map.
        """
        self.look, self.skill = look, skill
        self.feeds = {feed.name: feed for feed in feeds}
        self.views = {feed.name: StreamView(look) for feed in feeds}
        self.maps = Maps(overlays)
        self.run = secrets.token_hex(4)
        """Differs for each start, so that no browser mixes up two."""
        self.started = utc_now()
        self.missed = missed
        self.ended = ""
        """Why the stream ended; empty while it runs."""
        self._cadence_s, self._stale_s, self._max_age_s = cadence_s, stale_s, max_age_s
        self._problems: deque[tuple[datetime, str]] = deque(maxlen=_PROBLEMS)
        self._sinks: dict[str, Mapping[str, SinkReport]] = {}
        self._troubles: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        self._facts: dict[str, tuple[int, bytes]] = {}
        self._version = 0

    @property
    def names(self) -> list[str]:
        """The streams, in their order."""
        return list(self.feeds)

    def no_stream(self, name: str) -> str:
        """The answer to an address that asks for a stream that is not there."""
        named = ", ".join(name for name in self.names if name)
        there = f"there are {named}" if named else "the only one has no name: leave stream= out"
        return f"no stream {name!r}; {there}\n"

    def frame(self, frame: Frame, verdict: Verdict, stream: str) -> None:
        """See `Watcher`."""
        view = self.views.get(stream)
        if view is not None:
            view.frame(frame, verdict, utc_now())

    def nowcast(self, nowcast: Nowcast) -> None:
        """See `Watcher`."""
        view = self.views.get(nowcast.stream)
        if view is None:
            return
        view.nowcast(nowcast)
        name, sinks = nowcast.stream, self.feeds[nowcast.stream].report().sinks
        before = self._sinks.get(name, {})
        self._troubles[name] = tuple(
            trouble
            for sink, report in sinks.items()
            for trouble in _troubles(sink, before.get(sink, SinkReport()), report)
        )
        self._sinks[name] = sinks

    def restore(self, nowcast: Nowcast, arrived_at: datetime) -> None:
        """Show a nowcast from before a restart, whose newest frame came at `arrived_at`."""
        view = self.views.get(nowcast.stream)
        if view is not None:
            view.restore(nowcast, max(0.0, (utc_now() - arrived_at).total_seconds()))

    def problem(self, line: str) -> None:
        """See `Watcher`."""
        with self._lock:
            self._problems.append((utc_now(), line))
            self._version += 1

    def verified(self, verified: Verified) -> None:
        """A frame was compared with what had been forecast of it."""
        view = self.views.get(verified.stream)
        if view is not None:
            view.verified(verified)

    def verdict(self, name: str) -> StreamVerdict:
        """How a stream is."""
        view, alarm = self.views[name], self.skill.alarms.get(name)
        latest = view.latest
        return judge(
            self.health(name),
            arrival_age_s=self.arrival_age_s(name),
            stale_s=stale_after_s(self._stale_s, self.cadence_s(name)),
            old=self._old(name),
            is_restored=view.is_restored,
            alarm=alarm is not None and alarm.standing,
            filled_frames=0 if latest is None else sum(map(bool, latest.context_fill)),
            troubles=self._troubles.get(name, ()),
        )

    def _old(self, name: str) -> str:
        arrived = self.views[name].arrived
        if arrived is None or self.feeds[name].is_replay():
            return ""
        most_s = old_after_s(self._max_age_s, self.cadence_s(name))
        return old_data(arrived.valid_time, utc_now(), most_s)

    def health(self, name: str) -> HealthNow:
        """Of a stream's source; `ended` once the whole stream did."""
        now = self.feeds[name].health()
        return HealthNow("ended", now.since, "", now.reconnects) if self.ended else now

    def cadence_s(self, name: str) -> float | None:
        """Seconds between a stream's frames; None where it is not known yet."""
        latest = self.views[name].latest
        return self._cadence_s if latest is None else latest.cadence_s

    def arrival_age_s(self, name: str) -> float | None:
        """Seconds since a stream's newest frame came; None: none did."""
        arrived = self.views[name].arrived
        return None if arrived is None else monotonic() - arrived.seen

    def version(self, name: str) -> tuple[int, int]:
        """Changes whenever `facts` do."""
        return self.views[name].version, self._version

    def hello(self) -> bytes:
        """What does not change, as JSON."""
        return _json(
            {
                "run": self.run,
                "version": __version__,
                "started": utc_text(self.started),
                "streams": [
                    {"name": name, "source": feed.source} for name, feed in self.feeds.items()
                ],
                "look": self.look.as_json(),
                "thresholds": [f"{threshold:g}" for threshold in self.skill.thresholds],
            }
        )

    def facts(self, name: str) -> bytes:
        """What is shown of a stream, as JSON."""
        version = hash(self.version(name))
        known = self._facts.get(name)
        if known is not None and known[0] == version:
            return known[1]
        skill = self.skill.now(name)
        place = f"{self.run}/{self.names.index(name)}/"
        with self._lock:
            problems = [(utc_text(at), line) for at, line in self._problems]
        made = _json(
            {
                "stream": name,
                **self.views[name].facts(f"pictures/{place}"),
                "points": f"points/{place}",
                "map": self.maps.facts(self.views[name].grid, "map/"),
                "skill": None if skill is None else skill.as_json(),
                "problems": [{"time": at, "line": line} for at, line in reversed(problems)],
            }
        )
        self._facts[name] = (version, made)
        return made

    def pulse(self) -> dict[str, Any]:
        """What changes with time alone: states, ages and counts of all streams."""
        return {
            "now": utc_text(utc_now()),
            "run": self.run,
            "ended": self.ended,
            "status": worst([self.verdict(name) for name in self.feeds]),
            "streams": {name: self._pulse(name) for name in self.feeds},
        }

    def _pulse(self, name: str) -> dict[str, Any]:
        health, verdict = self.health(name), self.verdict(name)
        arrived, report = self.views[name].arrived, self.feeds[name].report()
        counts = report.counts
        return {
            "status": verdict.word,
            "reasons": verdict.reasons,
            "is_replay": self.feeds[name].is_replay(),
            "stage": self.feeds[name].stage(),
            "source": {
                "state": health.state,
                "since": utc_text(health.since),
                "reason": health.reason,
                "reconnects": health.reconnects,
            },
            "frame": None
            if arrived is None
            else {
                "valid_time": utc_text(arrived.valid_time),
                "lag_s": round(arrived.lag_s, 3),
                "arrived_s_ago": round(monotonic() - arrived.seen, 3),
            },
            "counts": {
                fate: getattr(counts, fate)
                for fate in ("received", "used", "late", "duplicate", "dropped", "bad", "pending")
            },
            "gaps": report.gaps,
            "nowcasts": {
                "made": report.nowcasts,
                "wanted": self.feeds[name].frames_to_next(),
                "skipped": report.skipped,
                "incomplete": report.incomplete,
                "not_finite": report.not_finite,
                "standing_in": report.standing_in,
                "ahead": report.prewarmed,
            },
        }


def _troubles(sink: str, before: SinkReport, now: SinkReport) -> Iterator[str]:
    """What went wrong with the newest nowcasts."""
    if now.failed + now.dropped > before.failed + before.dropped:
        yield f"{sink} cannot write"
    if now.not_deleted > before.not_deleted:
        yield f"{sink} cannot delete what is too old"


def _json(document: Any) -> bytes:
    return json.dumps(finite(document), separators=(",", ":")).encode()
