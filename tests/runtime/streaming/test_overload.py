"""Frames come twice as fast as nowcasts can be made; on a clock that only the work moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from types import SimpleNamespace

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_runtime.engine import Session, StateHandle
from stpl_runtime.ledger import Ledger
from stpl_runtime.links.health import Health
from stpl_runtime.nowcasting.nowcaster import ContextMode, Nowcaster
from stpl_runtime.source import Arrival
from stpl_runtime.streaming.stream import Stream
from stpl_runtime.streaming.streams import Streams
from tests.runtime.conftest import CADENCE_S, make_frame
from tests.runtime.nowcasting.test_nowcaster import CountingSession
from tests.runtime.streaming.test_streams import Kept

STEP_S, FORECAST_S = 0.010, 0.030
COMPUTE_S = 3 * STEP_S + FORECAST_S
"""All of one nowcast's work, T = 4."""


class Clock:
    """Time that stands still unless someone advances it; the source keeps up with it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: float | None = None
        """When the source yields next; None once it has ended."""
        self.changed = threading.Condition()

    def advance(self, seconds: float) -> None:
        """Let time pass, and wait until the source has yielded all that is due."""
        with self.changed:
            self.now += seconds
            self.changed.notify_all()
            kept_up = self.changed.wait_for(
                lambda: self.due is None or self.due > self.now, timeout=60
            )
            assert kept_up

    def wait_until(self, due: float, stop: threading.Event) -> None:
        """In the source's thread."""
        with self.changed:
            self.due = due
            self.changed.notify_all()
            while self.now < due and not stop.is_set():
                self.changed.wait(0.05)


class TimedSession(CountingSession):
    """The real results; each call takes its time on the clock."""

    def __init__(self, session: Session, clock: Clock) -> None:
        super().__init__(session)
        self.clock = clock

    def step(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        self.clock.advance(STEP_S)
        return super().step(frame, state)

    def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        self.clock.advance(FORECAST_S)
        return super().forecast(frame, state)


class Metronome:
    """A live source: a frame every period, whether anyone is ready or not."""

    name, waits = "metronome", False

    def __init__(self, clock: Clock, period_s: float, count: int) -> None:
        self.clock, self.period_s, self.count, self.health = clock, period_s, count, Health()

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        start = self.clock.now
        for n in range(self.count):
            due = start + (n + 1) * self.period_s
            self.clock.wait_until(due, stop)
            yield Arrival(make_frame(n), due, datetime.now(timezone.utc))
        with self.clock.changed:
            self.clock.due = None
            self.clock.changed.notify_all()


class Ticks(threading.Event):
    """What the loop sleeps on: nothing to do means that time goes on to the next frame."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        due = self.clock.due
        if due is not None and due > self.clock.now:
            self.clock.advance(due - self.clock.now)
        return super().wait(timeout)


@pytest.mark.parametrize("load", [0.5, 2.0, 10.0])
@pytest.mark.parametrize(
    ("mode", "compute_s", "most_s"),
    [
        ("window", COMPUTE_S, COMPUTE_S),
        # a frame and its nowcast; what may wait to be read (2 T frames), and the window
        ("carry", STEP_S + FORECAST_S, 11 * STEP_S + FORECAST_S),
    ],
)
def test_no_frame_is_lost_and_what_is_published_is_fresh(
    bundle: Bundle,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    mode: ContextMode,
    compute_s: float,
    most_s: float,
    load: float,
) -> None:
    clock = Clock()
    monkeypatch.setattr(
        "stpl_runtime.nowcasting.nowcaster.time", SimpleNamespace(monotonic=lambda: clock.now)
    )
    period_s = compute_s / load
    count = round(20.0 / period_s)  # of 20 s
    sink, ledger = Kept(), Ledger()
    nowcaster = Nowcaster(
        bundle,
        TimedSession(session, clock),
        cadence_s=CADENCE_S,
        mode=mode,
        ledger=ledger,
    )
    stream = Stream(nowcaster, Metronome(clock, period_s, count), [sink], ledger=ledger)
    streams = Streams([stream])
    streams._wake = Ticks(clock)
    nowcaster.warm_up()
    streams.run()
    report = stream.report()
    assert report.counts.used == report.counts.received == count
    assert report.nowcasts + report.skipped + report.incomplete == count
    written = report.sinks["kept"]
    assert written.written + written.dropped == report.nowcasts
    ages = np.array([nowcast.latency_ms for nowcast in sink.kept], float) / 1e3
    longest_s = most_s if load > 2 else compute_s
    assert np.percentile(ages[1:], 99) <= 2 * period_s + longest_s + 1e-9
    if load < 1:
        assert report.skipped == 0
        assert report.prewarmed >= report.nowcasts - 1
        assert ages[1:].max() <= FORECAST_S + 1e-9  # only the newest frame's own work is left
    elif mode == "window":
        made = count / load
        assert 0.8 * made <= report.nowcasts <= 1.2 * made + 1
        assert report.skipped > 0
    else:
        assert report.skipped > 0
    assert sink.kept[-1].issue_time == make_frame(count - 1).valid_time
