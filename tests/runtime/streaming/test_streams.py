"""Several streams over one session, policies, and sinks in threads of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.errors import AccuracyError, SinkError, SourceLostError
from stpl_core.frames import Frame
from stpl_runtime.engine import Session
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.sink import Sink
from stpl_runtime.source import Arrival
from stpl_runtime.streaming.batching import Batcher
from stpl_runtime.streaming.publisher import LIMIT, Publisher
from stpl_runtime.streaming.stream import Stream
from stpl_runtime.streaming.streams import Streams
from tests.runtime.conftest import CADENCE_S, ListSource, make_frame, picture, run_alone, slot_time
from tests.runtime.nowcasting.test_nowcaster import CountingSession


@dataclass
class Kept:
    """A sink that keeps what it is given; `gate` holds it up, `fails` makes it fail."""

    name: str = "kept"
    gate: threading.Event | None = None
    fails: Callable[[int], bool] = lambda _: False
    kept: list[Nowcast] = field(default_factory=list)
    calls: int = 0
    closed: bool = False
    entered: threading.Event = field(default_factory=threading.Event)

    def write(self, nowcast: Nowcast) -> None:
        self.entered.set()
        if self.gate is not None:
            self.gate.wait(60)
        self.calls += 1
        if self.fails(self.calls):
            raise SinkError("no room")
        self.kept.append(nowcast)

    def close(self) -> None:
        self.closed = True


def frames_of(name: str, count: int) -> list[Frame]:
    """Each stream has frames of its own."""
    start = 1000 * sum(map(ord, name))
    return [Frame(slot_time(n), picture(start + n), source_id=f"{name}{n}") for n in range(count)]


def stream_of(
    bundle: Bundle,
    session: Session,
    source: ListSource,
    sinks: Sequence[Sink],
    name: str = "",
    **options: object,
) -> Stream:
    ledger = Ledger()
    made = {key: options.pop(key) for key in ("mode", "horizon", "on_gap") if key in options}
    nowcaster = Nowcaster(
        bundle,
        session,
        cadence_s=CADENCE_S,
        ledger=ledger,
        stream=name,
        **made,  # type: ignore[arg-type]
    )
    return Stream(nowcaster, source, sinks, ledger=ledger, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [(), (2,), (3, 2)])
@pytest.mark.parametrize("mode", ["window", "carry"])
def test_each_of_several_streams_equals_its_solo_run(
    bundle: Bundle,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, ...],
    mode: str,
) -> None:
    monkeypatch.setattr(Batcher, "measure", lambda self, _: setattr(self, "sizes", sizes))
    names = ("a", "b", "c")
    counting = CountingSession(session)
    sink = Kept()
    options = {"mode": mode, "policy": "queue"}
    together = Streams(
        [
            stream_of(bundle, counting, ListSource(frames_of(n, 9)), [sink], n, **options)
            for n in names
        ]
    )
    report = together.run()
    assert report.ended == "the source ended"
    assert report.nowcasts == 3 * 6
    assert report.counts.received == report.counts.used == 27
    assert report.batches == sizes
    warm_ups, singles = 1, 18
    if not sizes:
        assert counting.forecasts == warm_ups + singles
    else:
        assert counting.forecasts < warm_ups + singles
    for name in names:
        alone = Kept()
        run_alone(
            stream_of(bundle, session, ListSource(frames_of(name, 9)), [alone], name, **options)
        )
        ours = [nowcast for nowcast in sink.kept if nowcast.stream == name]
        assert len(ours) == len(alone.kept) == 6
        for one, other in zip(ours, alone.kept, strict=True):  # in order, too
            assert one.issue_time == other.issue_time
            np.testing.assert_array_equal(one.frames, other.frames)
        assert report.streams[name].counts.used == 9
        assert report.streams[name].sinks["kept"].written == 6


def test_a_batch_is_used_only_where_it_gains_and_has_the_same_bits(
    bundle: Bundle, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Priced(CountingSession):
        """A call costs 1 and something for each further row; rows may differ in a bit."""

        cost, by_row, differs = 0.0, 0.0, False

        def forecast(self, frame, state):  # type: ignore[no-untyped-def]
            frames, after = super().forecast(frame, state)
            self.cost += 1 + self.by_row * (len(frame) - 1)
            if self.differs and len(frame) > 1:
                frames = np.nextafter(frames, np.float32(2))
            return frames, after

    priced = Priced(session)

    def cost_of(call: Callable[[], object]) -> float:
        before = priced.cost
        call()
        return priced.cost - before

    monkeypatch.setattr("stpl_runtime.streaming.batching._median_s", cost_of)
    batcher = Batcher(priced, bundle.manifest, 3)
    for by_row, differs, sizes in [(0.0, False, (3, 2)), (1.0, False, ()), (0.0, True, ())]:
        priced.by_row, priced.differs = by_row, differs
        batcher.measure(3)
        assert batcher.sizes == sizes
    other_horizon = Batcher(session, bundle.manifest, 2)
    other_horizon.measure(3)
    assert other_horizon.sizes == ()


def test_one_stream_that_is_not_finite_leaves_the_others_alone(
    bundle: Bundle, session: Session
) -> None:
    class OneBad(CountingSession):
        def forecast(self, frame, state):  # type: ignore[no-untyped-def]
            frames, after = super().forecast(frame, state)
            frames[frame.max(axis=(1, 2, 3)) == 1.0] = np.nan
            return frames, after

    bad = OneBad(session)
    batcher = Batcher(bad, bundle.manifest, 3)
    batcher.sizes = (2,)
    works = []
    for value in (0.5, 1.0):
        nowcaster = Nowcaster(bundle, bad, cadence_s=CADENCE_S)
        for n in range(4):
            nowcaster.put(Frame(slot_time(n), np.full((1, 16, 16), value, np.float32)))
        work = nowcaster.begin()
        assert work is not None
        works.append((value, work))
    results = {value: result for value, _, result in batcher.finish(works)}
    assert isinstance(results[1.0], AccuracyError)
    assert not isinstance(results[0.5], AccuracyError)


def test_one_source_of_several_may_go(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = ListSource(frames_of("a", 5), error=SourceLostError("the folder went away"))
    rest = ListSource(frames_of("b", 40))
    streams = Streams(
        [
            stream_of(bundle, session, source, [], name)
            for name, source in (("a", gone), ("b", rest))
        ]
    )
    with pytest.raises(SourceLostError):
        streams.run()
    report = streams.report()
    assert report.streams["a"].ended == "error"
    assert report.streams["b"].ended == "the source ended"
    assert report.streams["b"].counts.used == 40
    assert "a: the folder went away" in capsys.readouterr().err


@pytest.mark.parametrize("waits", [True, False])
def test_queue_makes_every_nowcast_in_order(bundle: Bundle, session: Session, waits: bool) -> None:
    sink = Kept()
    source = ListSource([make_frame(n) for n in range(60)], waits=waits)
    limit = 8 if waits else 60
    stream = stream_of(bundle, session, source, [sink], policy="queue", queue_limit=limit)
    report = run_alone(stream)
    assert (report.nowcasts, report.skipped) == (57, 0)
    times = [nowcast.issue_time for nowcast in sink.kept]
    assert times == [slot_time(n) for n in range(3, 60)]
    assert report.counts.used == 60


def test_queue_drops_the_oldest_frames_of_a_source_that_cannot_wait_and_carry_starts_anew(
    bundle: Bundle, session: Session
) -> None:
    full = threading.Event()
    source = ListSource([make_frame(n) for n in range(40)], waits=False)
    stream = stream_of(bundle, session, source, [], policy="queue", queue_limit=8, mode="carry")
    inner = source.arrivals

    def all_at_once(stop: threading.Event) -> Iterator[Arrival]:
        yield from inner(stop)
        full.set()

    source.arrivals = all_at_once  # type: ignore[method-assign]
    first = stream.take_in
    stream.take_in = lambda: full.wait(60) and first()  # type: ignore[method-assign]
    report = run_alone(stream)
    assert report.counts.dropped == 32
    assert report.counts.used == 8
    assert (report.nowcasts, report.skipped) == (5, 0)


def test_pace_makes_the_source_wait_for_the_nowcast(bundle: Bundle, session: Session) -> None:
    sink, ahead = Kept(), []
    total = 30
    stream: Stream

    def pause(n: int) -> None:
        ahead.append(n - stream.nowcaster.ledger.snapshot().used)

    source = ListSource([make_frame(n) for n in range(total)], waits=False, pause=pause)
    stream = stream_of(bundle, session, source, [sink], policy="pace")
    report = run_alone(stream)
    assert (report.nowcasts, report.skipped, report.counts.dropped) == (total - 3, 0, 0)
    assert max(ahead) <= 2  # one waits, and one is on its way into the window


def test_a_slow_sink_holds_up_no_frame_and_drops_the_oldest_nowcasts(
    bundle: Bundle, session: Session
) -> None:
    gate = threading.Event()
    slow, quick = Kept("slow", gate), Kept("quick")

    def pause(n: int) -> None:
        if n > 3:
            wait_until(lambda: len(quick.kept) >= n - 3)
        if n == 30:
            gate.set()  # it comes to life when all but one of the frames have gone through

    source = ListSource([make_frame(n) for n in range(31)], pause=pause)
    report = run_alone(stream_of(bundle, session, source, [slow, quick]))
    assert report.counts.used == 31
    assert (report.nowcasts, report.skipped) == (28, 0)
    assert report.sinks["quick"].written == 28
    slow_report = report.sinks["slow"]
    assert slow_report.written + slow_report.dropped == 28
    assert slow_report.dropped >= 17  # one was being written, eight waited
    times = [nowcast.issue_time for nowcast in slow.kept]
    assert times == sorted(times, key=lambda t: t.timestamp() if t else 0.0)
    assert times[-1] == slot_time(30)
    assert slow.closed
    assert report.age_p99_ms is not None
    assert report.latency_p95_ms is not None


def nowcast_of(n: int, stream: str = "") -> Nowcast:
    frames = picture(n)[None]
    return Nowcast(frames, frames, "1", "x", 0.0, 1.0, issue_time=slot_time(n), stream=stream)


def test_the_end_waits_for_a_sink_but_not_for_ever() -> None:
    lines: list[str] = []
    stuck = Kept("stuck", threading.Event())
    publisher = Publisher(stuck, lines.append)
    for n in range(5):
        publisher.offer(nowcast_of(n))
    stuck.entered.wait(60)
    publisher.close(flush_s=0.05)
    assert lines == ["stuck: still busy after 0.05 s; 5 nowcasts given up"]
    assert publisher.report("").dropped == 5
    assert stuck.gate is not None
    stuck.gate.set()
    done = Kept("done")
    publisher = Publisher(done, lines.append)
    for n in range(5):
        publisher.offer(nowcast_of(n))
    publisher.close()
    assert [one.issue_time for one in done.kept] == [slot_time(n) for n in range(5)]
    assert done.closed


def test_stop_is_heard_while_a_sink_hangs_that_is_waited_for(
    bundle: Bundle, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Publisher.close, "__defaults__", (0.05,))
    sink = Kept(gate=threading.Event())
    source = ListSource([make_frame(n) for n in range(60)])
    stream = stream_of(bundle, session, source, [sink], policy="queue")
    streams = Streams([stream])
    running = threading.Thread(target=streams.run, daemon=True)
    running.start()
    wait_until(lambda: stream.published >= LIMIT + 1)  # one is being written, the rest wait
    streams.stop()
    running.join(30)
    assert not running.is_alive()
    assert sink.gate is not None
    sink.gate.set()
    report = stream.report()
    assert report.ended == "stopped"
    assert report.sinks["kept"].dropped == report.nowcasts


def test_a_bug_in_a_sink_is_not_swallowed(bundle: Bundle, session: Session) -> None:
    class Broken(Kept):
        def write(self, nowcast: Nowcast) -> None:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_alone(
            stream_of(bundle, session, ListSource([make_frame(n) for n in range(9)]), [Broken()])
        )


def test_a_sink_that_tells_of_files_comes_after_those_that_write_them() -> None:
    gate, order = threading.Event(), []

    @dataclass
    class Ordered(Kept):
        def write(self, nowcast: Nowcast) -> None:
            super().write(nowcast)
            order.append((self.name, nowcast.issue_time))

    files = Publisher(Ordered("files", gate), order.append)
    reports = Publisher(Ordered("reports"), order.append, after=[files])
    for n in range(3):
        files.offer(nowcast_of(n))
        reports.offer(nowcast_of(n))
    gate.set()
    files.close()
    reports.close()
    for n in range(3):
        assert order.index(("files", slot_time(n))) < order.index(("reports", slot_time(n)))


def wait_until(true: Callable[[], bool]) -> None:
    """For what another thread does and nothing reports."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_source_that_goes_down_and_comes_back_is_reported(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []

    class Watch:
        def frame(self, frame: Frame, verdict: str, stream: str) -> None: ...

        def nowcast(self, nowcast: Nowcast) -> None: ...

        def problem(self, line: str) -> None:
            lines.append(line)

    source = ListSource([make_frame(n) for n in range(6)])
    source.health.up()

    def pause(n: int) -> None:
        if n == 2:
            source.health.down("connection refused")
            wait_until(lambda: bool(lines))
            source.health.up()
            wait_until(lambda: len(lines) == 2)

    source._pause = pause
    report = run_alone(stream_of(bundle, session, source, [], watchers=[Watch()]))  # type: ignore[list-item]
    assert lines == ["list is down: connection refused; it is tried again", "list is up again"]
    assert report.reconnects == 1
    assert lines[0] in capsys.readouterr().err
    assert datetime.now(timezone.utc) >= source.health.now().since
