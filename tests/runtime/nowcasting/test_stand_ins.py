"""Missing frames: what stands in for them, that it is flagged, and that it gives way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.frames import Frame
from stpl_runtime.engine import Session, open_session
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import ContextMode, Nowcaster
from stpl_runtime.nowcasting.predict import predict_sequences
from stpl_runtime.nowcasting.stand_ins import OnGap
from tests.runtime.conftest import CADENCE_S, make_frame, open_named, slot_time


def nowcaster_of(
    bundle: Bundle,
    session: Session,
    *,
    on_gap: OnGap,
    mode: ContextMode = "window",
    horizon: int | None = None,
) -> Nowcaster:
    return Nowcaster(
        bundle, session, cadence_s=CADENCE_S, on_gap=on_gap, mode=mode, horizon=horizon
    )


def run(nowcaster: Nowcaster, frames: Iterable[Frame], idle: bool = True) -> Iterator[Nowcast]:
    for frame in frames:
        nowcaster.put(frame)
        nowcast = nowcaster.issue()
        if nowcast is not None:
            yield nowcast
        while idle and nowcaster.idle_step():
            pass


def slot_of(nowcast: Nowcast) -> int:
    assert nowcast.issue_time is not None
    return round((nowcast.issue_time - slot_time(0)).total_seconds() / CADENCE_S)


def offline(bundle: Bundle, session: Session, frames: Array, horizon: int = 3) -> Array:
    """`predict` on one sequence `(T, C, H, W)`, physical units."""
    return predict_sequences(bundle, session, frames[None], horizon)[0]


def context_of(slots: Iterable[int], given: dict[int, Array] | None = None) -> Array:
    return np.stack([(given or {}).get(n, make_frame(n).data) for n in slots])  # (T, C, H, W)


@pytest.mark.parametrize("mode", ["window", "carry"])
def test_hold_repeats_the_frame_before(bundle: Bundle, session: Session, mode: ContextMode) -> None:
    slots = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    nowcaster = nowcaster_of(bundle, session, on_gap="hold", mode=mode)
    made = list(run(nowcaster, [make_frame(n) for n in slots]))
    assert [slot_of(one) for one in made] == [3, 4, 6, 7, 8, 9, 10]
    for nowcast in made:
        newest = slot_of(nowcast)
        window = range(newest - 3, newest + 1)
        held = tuple("held" if n == 5 else "" for n in window)
        assert nowcast.context_fill == (held if 5 in window else ())
        np.testing.assert_array_equal(nowcast.context, context_of(window, {5: make_frame(4).data}))
        assert nowcast.context_times == tuple(slot_time(n) for n in window)
        if mode == "window":
            expected = offline(bundle, session, nowcast.context)
            np.testing.assert_array_equal(nowcast.frames, expected)
    report = nowcaster.state.tally
    assert (report.issued, report.standing_in, report.skipped) == (7, 3, 0)
    counts = nowcaster.ledger.snapshot()
    assert counts.received == counts.used == len(slots)  # nothing is counted that never came


@pytest.mark.parametrize("horizon", [1, 3, 5])
@pytest.mark.parametrize("mode", ["window", "carry"])
def test_bridge_takes_the_newest_forecast(
    bundle: Bundle, session: Session, mode: ContextMode, horizon: int
) -> None:
    slots = [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    nowcaster = nowcaster_of(bundle, session, on_gap="bridge", mode=mode, horizon=horizon)
    made = {slot_of(one): one for one in run(nowcaster, [make_frame(n) for n in slots])}
    assert sorted(made) == [3, 4, 7, 8, 9, 10, 11]
    before = made[4].frames if horizon > 1 else offline(bundle, session, made[4].context, 2)
    np.testing.assert_array_equal(made[7].context[1:3], before[:2])
    assert made[7].context_fill == ("", "bridged", "bridged", "")
    assert made[9].context_fill == ("bridged", "", "", "")
    assert made[10].context_fill == ()
    if mode == "window":
        for nowcast in made.values():
            expected = offline(bundle, session, nowcast.context, horizon)
            np.testing.assert_array_equal(nowcast.frames, expected)


def test_bridge_makes_a_forecast_where_none_was_made(bundle: Bundle, session: Session) -> None:
    """Nowcasts were skipped: the one that would cover the gap is made for it."""
    nowcaster = nowcaster_of(bundle, session, on_gap="bridge")
    for n in (0, 1, 2, 3, 4, 5, 6, 8):
        nowcaster.put(make_frame(n))
    nowcast = nowcaster.issue()
    assert nowcast is not None
    forecast = offline(bundle, session, context_of(range(3, 7)))
    np.testing.assert_array_equal(nowcast.context, context_of(range(5, 9), {7: forecast[0]}))
    assert nowcast.context_fill == ("", "", "bridged", "")


def test_bridge_holds_where_the_model_has_seen_too_little(bundle: Bundle, session: Session) -> None:
    nowcaster = nowcaster_of(bundle, session, on_gap="bridge")
    (first, *_) = run(nowcaster, [make_frame(n) for n in (0, 1, 3)])
    assert first.context_fill == ("", "", "held", "") if slot_of(first) == 4 else True
    made = list(run(nowcaster_of(bundle, session, on_gap="bridge"), map(make_frame, (0, 1, 3, 4))))
    assert [one.context_fill for one in made] == [("", "", "held", ""), ("", "held", "", "")]


@pytest.mark.parametrize("on_gap", ["hold", "bridge"])
def test_at_most_half_of_a_window_stands_in(
    bundle: Bundle, session: Session, on_gap: OnGap
) -> None:
    nowcaster = nowcaster_of(bundle, session, on_gap=on_gap)
    slots = [0, 1, 2, 3, 7, 8, 9, 10, 11]  # three of four are missing
    made = [slot_of(one) for one in run(nowcaster, [make_frame(n) for n in slots])]
    assert made == [3, 10, 11]
    assert nowcaster.incomplete == 3 + 3 + 3
    assert nowcaster.state.tally.standing_in == 0


@pytest.mark.parametrize("on_gap", ["hold", "bridge"])
@pytest.mark.parametrize("mode", ["window", "carry"])
def test_a_late_frame_takes_its_place_and_the_nowcast_is_made_again(
    bundle: Bundle, session: Session, mode: ContextMode, on_gap: OnGap
) -> None:
    nowcaster = nowcaster_of(bundle, session, on_gap=on_gap, mode=mode)
    made = list(run(nowcaster, [make_frame(n) for n in (0, 1, 2, 3, 4, 6)]))
    assert made[-1].context_fill == ("", "", "bridged" if on_gap == "bridge" else "held", "")
    (again,) = run(nowcaster, [make_frame(5)])
    assert slot_of(again) == 6
    assert again.context_fill == ()
    np.testing.assert_array_equal(again.context, context_of(range(3, 7)))
    np.testing.assert_array_equal(again.frames, offline(bundle, session, context_of(range(3, 7))))
    (after,) = run(nowcaster, [make_frame(7)])
    if mode == "window":
        np.testing.assert_array_equal(
            after.frames, offline(bundle, session, context_of(range(4, 8)))
        )
    tally = nowcaster.state.tally
    assert (tally.issued, tally.again, tally.standing_in) == (4, 1, 1)
    counts = nowcaster.ledger.snapshot()
    assert (counts.used, counts.duplicate) == (8, 0)


def test_carry_forgets_a_stand_in_with_the_window(bundle: Bundle, session: Session) -> None:
    """What is not flagged depends on real frames only: the state starts anew after it."""
    nowcaster = nowcaster_of(bundle, session, on_gap="hold", mode="carry")
    made = {slot_of(n): n for n in run(nowcaster, map(make_frame, (*range(6), *range(7, 14))))}
    assert [n for n, one in made.items() if one.context_fill] == [7, 8, 9]
    for n in (10, 11, 13):
        frames = context_of(range(7, n + 1))
        whole = Bundle(bundle.path, bundle.manifest.model_copy(update={"context": len(frames)}))
        np.testing.assert_array_equal(made[n].frames, offline(whole, session, frames))


def test_the_mask_of_the_frame_before_goes_along(bundle: Bundle, session: Session) -> None:
    mask = np.ones((16, 16), bool)
    mask[:4] = False
    frames = [
        Frame(make_frame(n).valid_time, make_frame(n).data, mask if n == 4 else None)
        for n in (0, 1, 2, 3, 4, 6)
    ]
    (*_, nowcast) = run(nowcaster_of(bundle, session, on_gap="hold"), frames)
    assert nowcast.context_fill == ("", "", "held", "")
    assert nowcast.observed is None  # the newest frame was whole
    given = context_of([3, 4, 4, 6])
    given[1:3, :, :4] = bundle.manifest.codec.no_data_value
    np.testing.assert_array_equal(nowcast.frames, offline(bundle, session, given))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    missing=st.sets(st.integers(0, 19), max_size=9),
    keys=st.lists(st.floats(0, 3.99), min_size=20, max_size=20),
    idle=st.lists(st.integers(0, 4), min_size=20, max_size=20),
    masked=st.sets(st.integers(0, 19)),
    on_gap=st.sampled_from(["hold", "bridge"]),
    mode=st.sampled_from(["window", "carry"]),
)
def test_any_order_any_loss(
    bundle: Bundle,
    session: Session,
    missing: set[int],
    keys: list[float],
    idle: list[int],
    masked: set[int],
    on_gap: OnGap,
    mode: ContextMode,
) -> None:
    """A nowcast is the offline one of the context that it names; counts are of real frames."""
    order = [n for n in sorted(range(20), key=lambda n: n + keys[n] * 0.8) if n not in missing]
    mask = np.eye(16, dtype=bool)
    nowcaster = nowcaster_of(bundle, session, on_gap=on_gap, mode=mode)
    received: set[int] = set()
    flagged: set[int] = set()
    clean: set[int] = set()
    for n in order:
        frame = make_frame(n)
        if n in masked:
            frame = Frame(frame.valid_time, frame.data, mask)
        if nowcaster.put(frame).verdict == "used":
            received.add(n)
        nowcast = nowcaster.issue()
        for _ in range(idle[n]):
            nowcaster.idle_step()
        if nowcast is None:
            continue
        newest = max(received)
        window = range(newest - 3, newest + 1)
        assert slot_of(nowcast) == newest
        how = nowcast.context_fill or ("",) * 4
        assert [not one for one in how] == [slot in received for slot in window]
        assert sum(map(bool, how)) <= 2
        assert not how[-1]
        assert newest not in clean  # made again only to get rid of a stand-in
        (flagged if any(how) else clean).add(newest)
        seen = nowcast.context.copy()
        for k, slot in enumerate(window):
            if not how[k]:
                np.testing.assert_array_equal(seen[k], make_frame(slot).data)
                if slot in masked:
                    seen[k][:, ~mask] = bundle.manifest.codec.no_data_value
        a_mask_may_stand_in = any(how) and masked & set(range(newest - 6, newest))
        if mode == "window" and not a_mask_may_stand_in:
            np.testing.assert_array_equal(nowcast.frames, offline(bundle, session, seen))
    counts = nowcaster.ledger.snapshot()
    assert counts.add_up
    assert counts.used == len(received)
    tally = nowcaster.state.tally
    slots = max(received) - order[0] + 1
    assert tally.issued + tally.skipped + tally.incomplete + nowcaster.waiting == slots
    assert tally.issued == len(flagged | clean)
    assert tally.again == len(flagged & clean) + (tally.standing_in - len(flagged))


def test_bridge_beats_hold_on_moving_digits() -> None:
    """10% of the frames are missing: the error of all nowcasts, whether a frame was missing or not.

    benchmarks/results/gaps.json has the same of 100 streams.
    """
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    from benchmarks import gaps
    from stpl_train.data import unseen_sequence
    from stpl_train.recipe import load_recipe

    bundle = open_named("predrnn-digits")
    data = load_recipe(str(bundle.path.with_name("predrnn-digits.toml"))).data
    streams = [unseen_sequence(data, 50, n) for n in range(12)]  # (50, 1, 32, 32) each
    with contextlib.closing(open_session(bundle, ("step", "forecast"), threads=1)) as session:
        reported = gaps.compare(gaps.measure(bundle, session, streams, loss=0.1))["all nowcasts"]
    assert reported["nowcasts"] > 400
    assert reported["bridge_over_hold"] < 0.9
