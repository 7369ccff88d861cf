"""Everything at once: exact counts, no fabricated frame, no crash. (Memory: test_memory.py.)"""

from __future__ import annotations

import gc

import numpy as np
import psutil
import pytest

from stpl_core.bundle import Bundle
from stpl_runtime.engine import Session
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcasting.nowcaster import ContextMode, Nowcaster
from stpl_runtime.nowcasting.predict import predict_sequences
from stpl_runtime.nowcasting.stand_ins import OnGap
from stpl_runtime.streaming.report import StreamReport
from stpl_runtime.streaming.stream import Stream
from tests.runtime.conftest import CADENCE_S, run_alone, slot_time
from tests.runtime.streaming.chaos import Chaos, ChaosSource, CheckedSink

MODES: list[tuple[ContextMode, OnGap]] = [
    ("window", "reset"),
    ("carry", "hold"),
    ("window", "bridge"),
]


def run_chaos(
    bundle: Bundle, session: Session, slots: int, mode: ContextMode, on_gap: OnGap
) -> tuple[StreamReport, CheckedSink, list[tuple[int, float]]]:
    """Run and check all but memory -> report, sink, and (frames, MiB resident) on the way."""
    chaos = Chaos(slots)
    sink = CheckedSink(chaos, range(50, 150))
    ledger = Ledger()
    nowcaster = Nowcaster(
        bundle,
        session,
        cadence_s=CADENCE_S,
        ledger=ledger,
        mode=mode,
        on_gap=on_gap,
    )
    nowcaster.window._clock = lambda: slot_time(10 * slots)  # all of it is in the past
    stream = Stream(
        nowcaster, ChaosSource(chaos), [sink], ledger=ledger, queue_limit=3, policy="latest"
    )
    process = psutil.Process()
    resident: list[tuple[int, float]] = []
    taken = stream.take_in

    def take_in() -> bool:
        found = taken()
        counts = ledger.snapshot()
        assert counts.add_up
        if counts.received // 500 > len(resident):
            gc.collect()
            resident.append((counts.received, process.memory_info().rss / 2**20))
        return found

    stream.take_in = take_in  # type: ignore[method-assign]
    report = run_alone(stream)
    counts = report.counts
    assert report.ended == "the source ended"
    assert counts.received == sum(chaos.fates.values())
    assert {name: getattr(counts, name) for name in ("used", "late", "duplicate", "bad")} == {
        name: chaos.fates[name] for name in ("used", "late", "duplicate", "bad")
    }
    assert counts.dropped == counts.pending == 0
    assert report.reconnects == chaos.kills == 3
    assert report.gaps == chaos.gaps >= 2  # the outages of 7 and 300 slots, and runs of bad luck
    assert sink.wrong == []
    written = report.sinks[sink.name]
    assert (written.failed, written.written) == (sink.failed, sink.calls - sink.failed)
    assert written.failed + written.written + written.dropped == report.nowcasts
    assert report.not_finite == 0
    assert (report.standing_in > 0) == (on_gap != "reset")
    assert (sink.flagged > 0) == (on_gap != "reset")
    for nowcast in sink.sampled:
        if mode == "window":
            context = nowcast.context[None]
            offline = predict_sequences(bundle, session, context, len(nowcast.frames))[0]
            np.testing.assert_array_equal(nowcast.frames, offline)
    return report, sink, resident


@pytest.mark.parametrize(("mode", "on_gap"), MODES)
def test_two_thousand_frames_of_chaos(
    bundle: Bundle,
    session: Session,
    mode: ContextMode,
    on_gap: OnGap,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report, sink, _ = run_chaos(bundle, session, 2000, mode, on_gap)
    assert report.counts.received > 1800
    assert sink.failed == 100
    assert report.exit_code == 4  # the disk was full for a while
    err = capsys.readouterr().err
    assert err.count("No space left on device") == 1
    assert err.count("writes again") == 1
    assert err.count("chaos is down: connection refused") <= 3  # each is logged if it is seen
    assert err.count("gap: ") == report.gaps
