"""Where each frame goes, and that the counts add up at every moment."""

from __future__ import annotations

import threading
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_core.errors import UsageError
from stpl_core.frames import Frame
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcasting.window import Verdict, Window
from tests.runtime.conftest import CADENCE_S, START, make_frame, slot_time


def frame_at(offset: float, value: float = 0.0) -> Frame:
    """A frame of one pixel, `offset` cadences after the start."""
    return Frame(slot_time(offset), np.full((1, 1, 1), value, np.float32))


def put_all(window: Window, ledger: Ledger, frames: list[Frame]) -> list[Verdict]:
    verdicts = []
    for frame in frames:
        ledger.receive()
        verdicts.append(window.put(frame).verdict)
        assert ledger.snapshot().add_up
    return verdicts


ARRIVALS = st.lists(
    st.tuples(
        st.integers(-6, 14),  # slot
        st.sampled_from([0.0, 0.0, 0.0, 0.2, -0.25, 0.3, 0.5]),  # away from it, in cadences
        st.integers(0, 1),  # value: a correction differs from a repeat
    ),
    max_size=40,
)


@settings(max_examples=1000, deadline=None)
@given(arrivals=ARRIVALS, context=st.integers(1, 5), data=st.data())
def test_every_frame_is_accounted_for(
    arrivals: list[tuple[int, float, int]], context: int, data: st.DataObject
) -> None:
    lateness = data.draw(st.integers(0, context - 1))
    ledger = Ledger()
    window = Window(context, ledger, cadence_s=CADENCE_S, lateness=lateness)
    earlier: list[tuple[int, Verdict]] = []
    phase: float | None = None
    for slot, away, value in arrivals:
        offset = slot + away
        phase = offset if phase is None else phase
        relative = offset - phase
        nearest = round(relative)
        on_grid = abs(relative - nearest) <= 0.25 + 1e-6
        newest = max((s for s, verdict in earlier if verdict == "used"), default=None)
        expected: Verdict
        if not on_grid:
            expected = "dropped"
        elif newest is not None and nearest < newest - lateness:
            expected = "late"
        elif (nearest, "used") in earlier:
            expected = "duplicate"
        else:
            expected = "used"
        ledger.receive()
        placed = window.put(frame_at(offset, value))
        assert ledger.snapshot().add_up
        if placed.notice.startswith("new time line"):  # three in a row agreed
            assert expected in ("late", "dropped")
            break
        assert placed.verdict == expected
        earlier.append((nearest, expected))
    counts = ledger.snapshot()
    assert counts.pending == counts.bad == 0
    if len(earlier) == len(arrivals):
        assert counts.received == len(arrivals)
        for kind in ("used", "late", "duplicate", "dropped"):
            assert getattr(counts, kind) == sum(verdict == kind for _, verdict in earlier)


@settings(max_examples=300, deadline=None)
@given(slots=st.lists(st.integers(0, 12), max_size=40), context=st.integers(1, 5))
def test_the_window_holds_the_last_word_of_each_slot(slots: list[int], context: int) -> None:
    ledger = Ledger()
    window = Window(context, ledger, cadence_s=CADENCE_S)
    last: dict[int, float] = {}
    newest = -1
    for n, slot in enumerate(slots):
        phase = slots[0]
        (verdict,) = put_all(window, ledger, [frame_at(slot, float(n))])
        if verdict in ("used", "duplicate"):
            last[slot - phase] = float(n)
        newest = max(last)
        held = [last.get(s) for s in range(newest - context + 1, newest + 1)]
        complete = window.complete()
        if None in held:
            assert complete is None
        else:
            assert complete is not None
            assert [float(entry.frame.data[0, 0, 0]) for entry in complete] == held
            assert [entry.slot for entry in complete] == list(
                range(newest - context + 1, newest + 1)
            )


def test_memory_is_bounded() -> None:
    ledger = Ledger()
    window = Window(4, ledger, cadence_s=CADENCE_S)
    put_all(window, ledger, [make_frame(n) for n in range(500)])
    assert len(window.entries(0, 499)) == 0  # slot 0 is gone
    assert len(window.entries(496, 499)) == 4
    assert len(window.state.entries) == 4


def test_the_cadence_is_learned_from_three_distinct_times() -> None:
    ledger = Ledger()
    window = Window(3, ledger)
    assert put_all(window, ledger, [frame_at(0), frame_at(0), frame_at(0, 1.0), frame_at(1)]) == [
        "pending",
        "duplicate",
        "duplicate",
        "pending",
    ]
    assert ledger.snapshot().pending == 2
    assert put_all(window, ledger, [frame_at(2)]) == ["used"]
    assert ledger.snapshot().pending == 0
    assert window.grid is not None
    assert window.grid.cadence_s == CADENCE_S
    complete = window.complete()
    assert complete is not None
    assert complete[0].frame.data[0, 0, 0] == 1.0  # the correction


def test_the_cadence_is_learned_from_frames_in_the_wrong_order() -> None:
    ledger = Ledger()
    window = Window(3, ledger)
    put_all(window, ledger, [frame_at(5), frame_at(4), frame_at(3)])
    assert ledger.snapshot().used == 3
    complete = window.complete()
    assert complete is not None
    assert [entry.frame.valid_time for entry in complete] == [slot_time(n) for n in (3, 4, 5)]


def test_a_correction_gets_a_new_serial_and_a_repeat_does_not() -> None:
    ledger = Ledger()
    window = Window(1, ledger, cadence_s=CADENCE_S)
    serials = []
    for value in (1.0, 1.0, 2.0, 2.0):
        put_all(window, ledger, [frame_at(0, value)])
        complete = window.complete()
        assert complete is not None
        serials.append(complete[0].serial)
    assert serials[0] == serials[1] < serials[2] == serials[3]
    assert ledger.snapshot().duplicate == 3


def test_the_mask_belongs_to_the_content() -> None:
    ledger = Ledger()
    window = Window(1, ledger, cadence_s=CADENCE_S)
    data = np.zeros((1, 2, 2), np.float32)
    whole, holed = np.ones((2, 2), bool), np.eye(2, dtype=bool)
    serials = []
    for mask in (None, whole, holed, holed.copy()):
        put_all(window, ledger, [Frame(START, data, mask)])
        complete = window.complete()
        assert complete is not None
        serials.append(complete[0].serial)
    assert serials[0] < serials[1] < serials[2] == serials[3]


@pytest.mark.parametrize("lateness", [-1, 4, 100])
def test_a_lateness_outside_the_window_is_refused(lateness: int) -> None:
    with pytest.raises(UsageError, match=r"--lateness.*0 to 3"):
        Window(4, Ledger(), lateness=lateness)


@pytest.mark.parametrize("cadence_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_cadence_that_is_no_time_is_refused(cadence_s: float) -> None:
    with pytest.raises(UsageError, match="--cadence"):
        Window(4, Ledger(), cadence_s=cadence_s)


def test_snapshots_add_up_while_threads_count() -> None:
    ledger = Ledger()
    stop = threading.Event()

    def receive() -> None:
        while not stop.is_set():
            ledger.receive()
            ledger.settle("used")

    threads = [threading.Thread(target=receive) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert all(ledger.snapshot().add_up for _ in range(20_000))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert ledger.snapshot().pending == 0
    assert ledger.snapshot().used > 0


def test_a_window_that_is_jumped_over_leaves_in_order() -> None:
    ledger = Ledger()
    window = Window(3, ledger, cadence_s=CADENCE_S)
    put_all(window, ledger, [frame_at(n) for n in (0, 2, 1)])
    ledger.receive()
    placed = window.put(Frame(START + timedelta(seconds=50 * CADENCE_S), np.zeros((1, 1, 1))))
    assert [entry.slot for entry in placed.left] == [0, 1, 2]


def test_a_repeat_with_nan_where_nothing_was_observed_is_no_correction() -> None:
    data = np.array([[[np.nan, 1.0]]], np.float32)
    frame = Frame(slot_time(0), data, np.array([[False, True]]))
    ledger = Ledger()
    window = Window(1, ledger, cadence_s=CADENCE_S)
    assert put_all(window, ledger, [frame, frame]) == ["used", "duplicate"]
    assert window.state.serial == 1
