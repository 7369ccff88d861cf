"""The driver: source thread, window, sinks, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.errors import SinkError, SourceLostError, UsageError
from stpl_core.frames import Frame
from stpl_runtime.engine import Session
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.nowcasting.predict import predict_sequences
from stpl_runtime.sink import Sink
from stpl_runtime.source import Arrival, BadFrame
from stpl_runtime.streaming.bad_frame_log import Faults
from stpl_runtime.streaming.inbox import Inbox
from stpl_runtime.streaming.stream import Stream
from stpl_runtime.streaming.streams import Streams
from tests.runtime.conftest import CADENCE_S, ListSource, make_frame, picture, run_alone
from tests.runtime.nowcasting.test_nowcaster import CountingSession


class KeptSink:
    """Keeps what it is given; fails where it is asked to."""

    name = "kept"

    def __init__(self, fails: Callable[[int], bool] = lambda _: False) -> None:
        self.kept: list[Nowcast] = []
        self.calls = 0
        self.closed = False
        self._fails = fails
        self.arrived = threading.Condition()

    def write(self, nowcast: Nowcast) -> None:
        self.calls += 1
        if self._fails(self.calls - 1):
            raise SinkError("cannot write x: No space left on device (0 bytes free)")
        with self.arrived:
            self.kept.append(nowcast)
            self.arrived.notify_all()

    def close(self) -> None:
        self.closed = True

    def wait_for(self, count: int) -> None:
        """Until so many nowcasts were kept."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.kept) >= count, timeout=30)


def make_stream(
    bundle: Bundle, session: Session, source: ListSource, *sinks: Sink, **options: object
) -> Stream:
    ledger = Ledger()
    queue = options.pop("queue_limit", 64)
    nowcaster = Nowcaster(
        bundle,
        session,
        cadence_s=CADENCE_S,
        ledger=ledger,
        **options,  # type: ignore[arg-type]
    )
    return Stream(nowcaster, source, sinks, ledger=ledger, queue_limit=queue)  # type: ignore[arg-type]


def paced(sink: KeptSink, ahead: int) -> Callable[[int], None]:
    """Yield frame n only when the nowcast of frame n - 1 was kept."""
    return lambda n: sink.wait_for(n - ahead) if n > ahead else None


def test_each_frame_gets_its_nowcast(bundle: Bundle, session: Session) -> None:
    sink = KeptSink()
    frames = [make_frame(n) for n in range(12)]
    stream = make_stream(bundle, session, ListSource(frames, pause=paced(sink, 3)), sink)
    report = run_alone(stream)
    assert report.ended == "the source ended"
    assert (report.nowcasts, report.skipped, report.incomplete) == (9, 0, 3)
    assert report.counts.received == report.counts.used == 12
    assert report.exit_code == 0
    assert sink.closed
    for n, nowcast in enumerate(sink.kept):
        window = np.stack([frame.data for frame in frames[n : n + 4]])[None]
        expected = predict_sequences(bundle, session, window, 3)[0]
        np.testing.assert_array_equal(nowcast.frames, expected)
        assert nowcast.latency_ms is not None
        assert nowcast.latency_ms > 0
    assert report.latency_median_ms is not None
    assert report.as_json()["latency_ms"]["median"] == report.latency_median_ms


def test_overload_loses_no_frame_and_counts_the_nowcasts_it_skips(
    bundle: Bundle, session: Session
) -> None:
    """The source is never slower than the work: frames wait, nowcasts are skipped."""
    sink = KeptSink()
    frames = [make_frame(n) for n in range(600)]
    stream = make_stream(bundle, session, ListSource(frames), sink, queue_limit=16)
    report = run_alone(stream)
    assert report.counts.received == report.counts.used == 600
    assert report.counts.add_up
    assert report.skipped > 0
    assert report.nowcasts + report.skipped + report.incomplete == 600
    times = [nowcast.issue_time for nowcast in sink.kept]
    assert times == sorted(set(times), key=lambda t: t.timestamp() if t else 0.0)
    assert times[-1] == frames[-1].valid_time  # the newest frame is never skipped


def test_a_source_that_cannot_wait_drops_the_oldest() -> None:
    ledger = Ledger()
    frames = [make_frame(n) for n in range(10)]
    inbox = Inbox(ListSource(frames, waits=False), ledger, limit=4)
    inbox.start()
    inbox._thread.join(timeout=30)
    assert (ledger.snapshot().dropped, ledger.snapshot().pending) == (6, 4)
    kept = [a.item for a in inbox.take(0.0)]
    assert [item.source_id for item in kept] == ["f6", "f7", "f8", "f9"]
    assert ledger.snapshot().add_up
    assert inbox.ended
    inbox.close()


def test_the_counts_add_up_at_every_moment(bundle: Bundle, session: Session) -> None:
    random = np.random.default_rng(0)
    items: list[Frame | BadFrame] = []
    for n in range(300):
        kind = random.integers(0, 8)
        if kind == 0:
            items.append(BadFrame(f"b{n}", "broken"))
        elif kind == 1:
            items.append(make_frame(max(0, n - int(random.integers(1, 9)))))
        elif kind == 2:
            items.append(make_frame(n, variant=1))
            items.append(make_frame(n))
        else:
            items.append(make_frame(n))
    stream = make_stream(bundle, session, ListSource(items))
    seen, done = [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(stream.ledger.snapshot())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        report = run_alone(stream)
    finally:
        done.set()
        watcher.join()
    assert len(set(seen)) > 3
    assert all(counts.add_up for counts in seen)
    counts = report.counts
    assert counts.received == len(items)
    assert counts.pending == 0
    assert min(counts.bad, counts.late, counts.duplicate, counts.used) > 0


def test_a_sink_that_fails_is_told_once_per_incident(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    other = KeptSink()
    failing = KeptSink(fails=lambda call: call in (1, 2, 3, 6))
    failing.name = "npz:full"
    frames = [make_frame(n) for n in range(12)]
    source = ListSource(frames, pause=paced(other, 3))
    report = run_alone(make_stream(bundle, session, source, failing, other))
    lines = [line for line in capsys.readouterr().err.splitlines() if "npz:full" in line]
    assert [line.endswith("the stream continues") for line in lines] == [True, False, True, False]
    assert len(failing.kept) == 5
    assert len(other.kept) == 9
    assert report.sink_failures == {"npz:full": 4, "kept": 0}
    assert report.exit_code == 4


def test_bad_late_and_dropped_frames_are_reported(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    off = Frame(make_frame(9).valid_time.replace(minute=2), make_frame(9).data, source_id="off")
    items = [make_frame(n) for n in range(8)]
    items += [make_frame(0), make_frame(1), off, Frame(off.valid_time, np.zeros((1, 2, 2)))]
    run_alone(make_stream(bundle, session, ListSource([*items, BadFrame("bad.npy", "broken")])))
    lines = capsys.readouterr().err.splitlines()
    assert sum("is late" in line for line in lines) == 1  # of two
    assert sum("--cadence SECONDS" in line for line in lines) == 1
    assert "bad frame bad.npy: broken (reported once; see the counts)" in lines
    assert any("has frames of shape (1, 2, 2)" in line for line in lines)


def test_each_kind_of_bad_frame_is_told_once(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = [
        Frame(make_frame(n).valid_time, picture(n) * (250 + n), source_id=f"g{n}") for n in range(5)
    ]
    small = [BadFrame(f"s{n}.png", f"in/s{n}.png has the shape (1, {n}, {n})") for n in range(3)]
    odd = [BadFrame("odd", "broken")]
    report = run_alone(make_stream(bundle, session, ListSource([*grey, *small, *odd])))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0].split(" from")[0] for line in lines] == [
        "bad frame g0 has values",
        "bad frame in/s0.png has the shape",
        "bad frame odd: broken",
    ]
    assert [fault.more for fault in report.bad_frames] == [4, 2, 0]
    assert report.counts.bad == report.counts.received == 9
    assert report.exit_code == 2
    assert report.as_json()["bad_frames"][2] == {"first": "odd: broken", "more": 0}
    good = run_alone(make_stream(bundle, session, ListSource([*grey, make_frame(9)])))
    assert good.exit_code == 0  # not all of them


def test_reasons_without_end_do_not_fill_the_log() -> None:
    faults = Faults()
    words = [a + b for a in "abcdefgh" for b in "abcdefgh"]
    logged = [faults.add(f"f{n}", f"f{n} is {word}") for n, word in enumerate(words)]
    assert sum(line is not None for line in logged) == len(faults.seen()) == 17
    assert sum(1 + fault.more for fault in faults.seen()) == 64


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_every_slot_is_accounted_for(bundle: Bundle, session: Session, count: int) -> None:
    """Also the newest one, whose window is not complete yet."""
    sink = KeptSink()
    frames = [make_frame(n) for n in range(count)]
    report = run_alone(make_stream(bundle, session, ListSource(frames, pause=paced(sink, 3)), sink))
    assert (report.nowcasts, report.incomplete) == (max(0, count - 3), min(3, count))


def test_nan_from_the_engine_is_counted_and_reported(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    counting = CountingSession(session)
    sink = KeptSink()

    def spoil(n: int) -> None:
        paced(sink, 3)(n)
        counting.spoil = n == 4

    source = ListSource([make_frame(n) for n in range(5)], pause=spoil)
    stream = make_stream(bundle, counting, source, sink)
    report = run_alone(stream)
    assert (report.nowcasts, report.not_finite, report.exit_code) == (1, 1, 3)
    assert "not published" in capsys.readouterr().err
    assert all(np.isfinite(nowcast.frames).all() for nowcast in sink.kept)


@pytest.mark.parametrize(
    ("error", "code"),
    [(SourceLostError("the folder went away"), 5), (UsageError("no cadence"), 2)],
)
def test_a_source_that_ends_in_an_error(
    bundle: Bundle, session: Session, error: SourceLostError, code: int
) -> None:
    source = ListSource([make_frame(n) for n in range(5)], error=error)
    stream = make_stream(bundle, session, source)
    with pytest.raises(type(error)) as caught:
        run_alone(stream)
    assert caught.value.exit_code == code
    assert stream.report().counts.used == 5  # what was there is counted first
    assert stream.report().nowcasts >= 1
    assert stream.report().ended == "error"  # which is reported once, by whoever catches it


def test_max_nowcasts_and_idle_timeout(bundle: Bundle, session: Session) -> None:
    sink = KeptSink()
    source = ListSource([make_frame(n) for n in range(12)], pause=paced(sink, 3))
    report = run_alone(make_stream(bundle, session, source, sink), max_nowcasts=2)
    assert report.nowcasts == 2
    assert report.ended == "2 nowcasts made"

    class Silent(ListSource):
        def arrivals(self, stop: threading.Event):  # type: ignore[no-untyped-def]
            yield from super().arrivals(stop)
            stop.wait()

    source = Silent([make_frame(0)])
    source.health.up()
    stream = make_stream(bundle, session, source)
    report = run_alone(stream, idle_timeout_s=0.0)
    assert report.ended == "nothing arrived for 0 s"


@pytest.mark.parametrize("reason", ["", "connection refused"])
def test_a_source_that_never_was_there_is_lost(
    bundle: Bundle, session: Session, reason: str
) -> None:
    class Away(ListSource):
        def arrivals(self, stop: threading.Event):  # type: ignore[no-untyped-def]
            if reason:
                self.health.down(reason)
            stop.wait()
            yield from ()

    stream = make_stream(bundle, session, Away([]))
    with pytest.raises(SourceLostError, match=f"list was not there .*{reason or 'no answer'}"):
        run_alone(stream, idle_timeout_s=0.3)
    assert stream.report().ended == "error"


@pytest.mark.parametrize("back", [False, True])
def test_a_source_that_is_lost_when_the_patience_ends(
    bundle: Bundle, session: Session, back: bool
) -> None:
    """It was up and gave frames; one that came back is merely quiet."""

    class Leaves(ListSource):
        def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
            self.health.up()
            yield from super().arrivals(stop)
            self.health.down("connection refused")
            if back:
                self.health.up()
            stop.wait()

    stream = make_stream(bundle, session, Leaves([make_frame(n) for n in range(5)]))
    if back:
        assert run_alone(stream, idle_timeout_s=0.3).exit_code == 0
        return
    with pytest.raises(SourceLostError, match=r"list went away, .*: connection refused; ") as lost:
        run_alone(stream, idle_timeout_s=0.3)
    assert lost.value.exit_code == 5
    assert stream.report().counts.used == 5
    assert stream.report().ended == "error"


def test_stop_ends_a_stream_that_waits(bundle: Bundle, session: Session) -> None:
    reached = threading.Event()

    def wait(n: int) -> None:
        if n == 5:
            reached.set()
            release.wait(30)

    release = threading.Event()
    stream = make_stream(bundle, session, ListSource([make_frame(n) for n in range(6)], pause=wait))
    streams = Streams([stream])
    stopper = threading.Thread(target=lambda: (reached.wait(30), streams.stop(), release.set()))
    stopper.start()
    report = streams.run()
    stopper.join()
    assert report.ended == "stopped"
    assert report.counts.add_up


def test_ctrl_c_ends_cleanly(tmp_path: Path, bundle: Bundle) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for n in range(4):
        np.save(folder / f"20260131{n:04d}.npy", make_frame(n).data)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "stpl_deploy",
            "stream",
            bundle.path,
            folder,
            "--sink",
            f"npz:{out}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("*.npz")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)  # another process: its file is the only event
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert "ended: stopped" in stdout
    assert "received 4 = 4 used" in stdout
    assert "Traceback" not in stderr
    assert [path.name for path in out.iterdir()] == ["nowcast_20260131T000300Z.npz"]


def test_who_watches_and_fails_does_not_end_the_stream(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def frame(self, *given: object) -> None:
            raise ZeroDivisionError("a bug in frame")

        nowcast = problem = frame

    ledger = Ledger()
    nowcaster = Nowcaster(bundle, session, cadence_s=CADENCE_S, ledger=ledger)
    items = [*(make_frame(n) for n in range(9)), BadFrame("x", "no frame")]
    stream = Stream(nowcaster, ListSource(items), ledger=ledger, watchers=[Broken()])
    report = run_alone(stream)
    assert report.counts.used == 9
    assert report.counts.bad == 1
    assert capsys.readouterr().err.count("ZeroDivisionError: a bug") == 1


def test_a_signal_may_come_while_the_loop_holds_a_lock() -> None:
    """Its handler runs in the loop's own thread, wherever that is: `stop` must need no lock."""
    streams = Streams(())
    with streams._wake._cond:  # type: ignore[attr-defined]  # as in `clear` and `wait`
        other = threading.Thread(target=streams.stop, daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_a_machine_without_room_ends_no_stream(
    bundle: Bundle, session: Session, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a library says it that a sink makes its files with, in a temporary directory."""

    class Full(KeptSink):
        def write(self, nowcast: Nowcast) -> None:
            super().write(nowcast)
            if self.calls == 2:
                raise error

    sink = Full()
    source = ListSource([make_frame(n) for n in range(7)], pause=paced(sink, 3))
    report = run_alone(make_stream(bundle, session, source, sink))
    assert report.exit_code == 4
    assert sum(report.sink_failures.values()) == 1
    err = capsys.readouterr().err
    assert err.count("; the stream continues") == 1
    assert (str(error) or "MemoryError") in err


def test_a_log_on_a_full_disk_ends_no_stream(
    bundle: Bundle, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    source = ListSource([*(make_frame(n) for n in range(6)), BadFrame("x", "no frame")])
    stream = make_stream(bundle, session, source)
    with pytest.raises(OSError, match="No space"), Path("/dev/full").open("w") as log:
        monkeypatch.setattr(sys, "stderr", log)
        report = run_alone(stream)
        monkeypatch.undo()  # what is still in its buffer cannot be written at the end either
    assert report.counts.used == 6
