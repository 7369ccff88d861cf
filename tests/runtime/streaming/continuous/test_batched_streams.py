"""Several streams that wait for one another: within the bound, and with nothing that hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, SourceLostError
from stpl_core.frames import Frame
from stpl_runtime.engine import Session, StateHandle
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.streaming.continuous.batcher import ContinuousBatcher, Limits
from stpl_runtime.streaming.continuous.deferred import DeferredSession
from stpl_runtime.streaming.continuous.streams import BatchedStreams
from stpl_runtime.streaming.stream import Stream
from tests.runtime.conftest import ListSource, run_alone, slot_time
from tests.runtime.nowcasting.test_nowcaster import CountingSession
from tests.runtime.streaming.continuous.failing import FailingInBatches
from tests.runtime.streaming.test_streams import Kept, frames_of, stream_of, wait_until

FOR_EVER_S = 250.0
"""Longer than a test may take: nobody may wait for so long."""


@pytest.fixture(autouse=True)
def _sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of three and two, whatever this machine would gain by them."""
    monkeypatch.setattr(
        ContinuousBatcher, "measure", lambda self, _: setattr(self, "sizes", (3, 2))
    )


def batched(
    bundle: Bundle,
    session: Session,
    sources: dict[str, ListSource],
    sink: Kept,
    wait_s: float = FOR_EVER_S,
    **options: object,
) -> BatchedStreams:
    deferred = DeferredSession(session)
    limits = None if options.get("mode") == "carry" else Limits(np.zeros(1), np.zeros(1))
    streams = [
        stream_of(bundle, deferred, source, [sink], name, **options)
        for name, source in sources.items()
    ]
    return BatchedStreams(streams, deferred, wait_s, limits)


def used(stream: Stream) -> int:
    """Frames that its window has taken."""
    return stream.ledger.snapshot().used


def once_all_lack_one(streams: Sequence[Stream]) -> Callable[[int], None]:
    """Holds up a fourth frame, which fills a window, until every stream lacks only that one."""

    def pause(n: int) -> None:
        if n == 3:
            wait_until(lambda: all(used(stream) >= 3 for stream in streams))

    return pause


def alone(bundle: Bundle, session: Session, name: str, count: int, **options: object) -> Kept:
    """The same stream on its own, unbatched."""
    sink = Kept()
    run_alone(
        stream_of(bundle, session, ListSource(frames_of(name, count)), [sink], name, **options)
    )
    return sink


def of(sink: Kept, name: str) -> list[Nowcast]:
    return [nowcast for nowcast in sink.kept if nowcast.stream == name]


def assert_same(ours: Sequence[Nowcast], theirs: Sequence[Nowcast]) -> None:
    assert [one.issue_time for one in ours] == [one.issue_time for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)


@pytest.mark.parametrize("policy", ["queue", "pace"])
@pytest.mark.parametrize(("mode", "horizon"), [("window", 3), ("carry", 3), ("carry", 5)])
def test_each_stream_equals_its_solo_run_and_all_run_in_one_call(
    bundle: Bundle, session: Session, policy: str, mode: str, horizon: int
) -> None:
    counting, sink = CountingSession(session), Kept()
    options = {"mode": mode, "horizon": horizon, "policy": policy}
    streams: list[Stream] = []
    pause = once_all_lack_one(streams)
    sources = {name: ListSource(frames_of(name, 9), pause=pause) for name in "abc"}
    together = batched(bundle, counting, sources, sink, **options)
    streams += together.streams
    report = together.run()
    assert (report.ended, report.batches, report.batch_gap) == ("the source ended", (3, 2), 0.0)
    if horizon == bundle.manifest.horizon:
        assert counting.forecasts == 1 + 6  # the warm-up, and one for all three each time
    for name in "abc":
        kept = alone(bundle, session, name, 9, **options).kept
        assert len(kept) == 6
        assert_same(of(sink, name), kept)
        assert report.streams[name].counts.used == 9


def test_a_stream_that_is_over_leaves_and_the_others_go_on_at_once(
    bundle: Bundle, session: Session
) -> None:
    counting, sink = CountingSession(session), Kept()
    lengths = {"a": 9, "b": 5, "c": 12}
    sources = {name: ListSource(frames_of(name, count)) for name, count in lengths.items()}
    report = batched(bundle, counting, sources, sink, policy="queue").run()
    assert report.nowcasts == 6 + 2 + 9
    for name, count in lengths.items():
        assert_same(of(sink, name), alone(bundle, session, name, count, policy="queue").kept)


def test_a_stream_joins_with_its_first_full_window_and_holds_nobody_before(
    bundle: Bundle, session: Session
) -> None:
    sink = Kept()
    streams: list[Stream] = []
    both = threading.Event()

    def b_waits(n: int) -> None:
        if n == 0:
            wait_until(lambda: streams[0].published >= 3)
        if n == 3:
            both.set()  # its fourth frame is on its way, which fills the window

    def a_waits(n: int) -> None:
        if n == 6:
            both.wait(60)

    sources = {
        "a": ListSource(frames_of("a", 9), pause=a_waits),
        "b": ListSource(frames_of("b", 6), pause=b_waits),
    }
    together = batched(bundle, session, sources, sink, policy="queue")
    streams += together.streams
    report = together.run()
    assert report.nowcasts == 6 + 3
    for name, count in (("a", 9), ("b", 6)):
        assert_same(of(sink, name), alone(bundle, session, name, count, policy="queue").kept)


def test_a_stuck_source_delays_the_others_by_the_bound_and_no_more(
    bundle: Bundle, session: Session
) -> None:
    sink, wait_s = Kept(), 0.05
    streams: list[Stream] = []

    def stuck(n: int) -> None:
        if n == 3:  # its window is all but full: it may come at any moment
            wait_until(lambda: streams[0].published == 6)

    sources = {
        "a": ListSource(frames_of("a", 9), pause=once_all_lack_one(streams)),
        "b": ListSource(frames_of("b", 5), pause=stuck),
    }
    together = batched(bundle, session, sources, sink, wait_s, policy="queue")
    streams += together.streams
    report = together.run()
    assert report.nowcasts == 6 + 2
    held = [nowcast.latency_ms or 0.0 for nowcast in of(sink, "a")]
    assert min(held) >= 1e3 * wait_s - 1  # from the arrival of its frame
    assert held[0] < 1e3 * wait_s + 2000  # the rest is the nowcast's, on a machine that is busy
    assert_same(of(sink, "b"), alone(bundle, session, "b", 5, policy="queue").kept)


def test_a_source_that_is_lost_leaves(bundle: Bundle, session: Session) -> None:
    sink = Kept()
    sources = {
        "a": ListSource(frames_of("a", 5), error=SourceLostError("the folder went away")),
        "b": ListSource(frames_of("b", 20)),
    }
    streams = batched(bundle, session, sources, sink, policy="queue")
    with pytest.raises(SourceLostError):
        streams.run()
    report = streams.report()
    assert (report.streams["a"].ended, report.streams["b"].ended) == ("error", "the source ended")
    assert_same(of(sink, "b"), alone(bundle, session, "b", 20, policy="queue").kept)


@pytest.mark.parametrize("graph", ["step", "forecast"])
def test_an_engine_that_fails_in_a_batch_ends_every_stream_by_name(
    bundle: Bundle, session: Session, graph: str
) -> None:
    sink = Kept()
    streams: list[Stream] = []
    pause = once_all_lack_one(streams)
    sources = {name: ListSource(frames_of(name, 6), pause=pause) for name in "ab"}
    together = batched(bundle, FailingInBatches(session, graph), sources, sink, policy="queue")
    streams += together.streams
    with pytest.raises(EnvironmentFault, match="out of memory") as failed:
        together.run()
    assert [one.ended for one in together.report().streams.values()] == ["error", "error"]
    assert sink.closed
    if graph == "forecast":
        assert "no nowcast of a, b" in str(failed.value)
        assert sink.kept == []


def test_one_stream_that_is_not_finite_leaves_the_others_alone(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    class OneBad(CountingSession):
        def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
            frames, after = super().forecast(frame, state)
            frames[frame.max(axis=(1, 2, 3)) == 1.0] = np.nan
            return frames, after

    white = [
        Frame(slot_time(n), np.full((1, 16, 16), n == 4, np.float32), source_id=f"a{n}")
        for n in range(6)
    ]
    sink = Kept()
    sources = {"a": ListSource(white), "b": ListSource(frames_of("b", 6))}
    report = batched(bundle, OneBad(session), sources, sink, policy="queue").run()
    assert report.streams["a"].not_finite == 1
    assert (report.streams["a"].nowcasts, report.streams["b"].nowcasts) == (2, 3)
    assert_same(of(sink, "b"), alone(bundle, session, "b", 6, policy="queue").kept)
    assert "not published" in capsys.readouterr().err


def test_stop_is_heard_while_a_batch_waits(bundle: Bundle, session: Session) -> None:
    stuck = threading.Event()
    streams: list[Stream] = []
    sources = {
        "a": ListSource(frames_of("a", 4), pause=once_all_lack_one(streams)),
        "b": ListSource(frames_of("b", 4), pause=lambda n: n < 3 or stuck.wait(60)),
    }
    together = batched(bundle, session, sources, Kept(), policy="queue")
    streams += together.streams
    running = threading.Thread(target=together.run, daemon=True)
    running.start()
    wait_until(lambda: used(streams[0]) == 4)
    together.stop()
    stuck.set()
    running.join(30)
    assert not running.is_alive()
    assert together.ended == "stopped"


def test_where_no_batch_gains_nobody_waits(
    bundle: Bundle,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ContinuousBatcher, "measure", lambda *_: None)
    streams: list[Stream] = []
    sources = {
        "a": ListSource(frames_of("a", 9)),
        "b": ListSource(
            frames_of("b", 4),
            pause=lambda n: n < 3 or wait_until(lambda: streams[0].published == 6),
        ),
    }
    sink = Kept()
    together = batched(bundle, session, sources, sink, policy="queue")
    streams += together.streams
    report = together.run()
    assert (report.nowcasts, report.batches) == (6 + 1, ())
    for name, count in (("a", 9), ("b", 4)):
        assert_same(of(sink, name), alone(bundle, session, name, count, policy="queue").kept)
    assert "none is held" in capsys.readouterr().err


def test_the_newest_frame_wins_while_a_batch_waits(bundle: Bundle, session: Session) -> None:
    """`latest`: a frame that comes meanwhile overtakes the nowcast that waits, and is counted."""
    sink = Kept()
    streams: list[Stream] = []

    sources = {
        "a": ListSource(frames_of("a", 6), pause=once_all_lack_one(streams)),
        "b": ListSource(
            frames_of("b", 4), pause=lambda n: n < 3 or wait_until(lambda: used(streams[0]) == 6)
        ),
    }
    together = batched(bundle, session, sources, sink, policy="latest")
    streams += together.streams
    report = together.run()
    assert (report.streams["a"].nowcasts, report.streams["a"].skipped) == (1, 2)
    (newest,) = of(sink, "a")
    assert newest.issue_time == slot_time(5)
    theirs = alone(bundle, session, "a", 6, policy="queue").kept[-1]
    np.testing.assert_array_equal(newest.frames, theirs.frames)


def test_the_past_of_all_streams_is_read_ahead_in_one_call_each(
    bundle: Bundle, session: Session
) -> None:
    counting = CountingSession(session)
    together = batched(bundle, counting, {name: ListSource([]) for name in "abc"}, Kept())
    together._warm_up()
    for stream in together.streams:
        for frame in frames_of(stream.name, 3):
            stream.ledger.receive()
            stream.nowcaster.put(frame)
    before = counting.steps
    while together._idle_step():
        pass
    assert counting.steps - before == 3
    for stream in together.streams:
        stream.ledger.receive()
        stream.nowcaster.put(frames_of(stream.name, 4)[3])
    assert together._issue()
    assert counting.steps - before == 3  # nothing was left
    assert [stream.report().prewarmed for stream in together.streams] == [1, 1, 1]
