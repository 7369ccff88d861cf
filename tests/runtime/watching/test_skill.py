"""Live skill: each nowcast against its truth, equal to the scores of `evaluate`."""

from __future__ import annotations

import dataclasses
import threading
from datetime import timedelta

import numpy as np
import pytest

from stpl_core.baselines import flow, persistence
from stpl_core.codec import Array, FrameCodec
from stpl_core.frames import Frame
from stpl_core.scores.accumulator import Accumulator
from stpl_deploy.cli.reports.stream import skill_line
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.watching.alarm import Alarm
from stpl_runtime.watching.background import Background
from stpl_runtime.watching.skill import LiveSkill, Verified
from stpl_runtime.watching.skill_sums import default_thresholds
from tests.runtime.conftest import CADENCE_S, slot_time

T, K, SHAPE = 3, 4, (1, 12, 14)
RAIN = FrameCodec(quantity="rain rate", units="mm h-1", low=0.0, high=20.0, clip=True)
LIMITS = (0.1, 1.0, 5.0)


def rain(seed: int) -> Array:
    """A frame with dry and wet parts."""
    random = np.random.default_rng(1000 + seed)
    wet = random.random(SHAPE, dtype=np.float32) < 0.5
    return np.where(wet, random.gamma(0.8, 3.0, SHAPE), 0.0).astype(np.float32)


def truth(slot: int, mask: np.ndarray | None = None) -> Frame:
    return Frame(slot_time(slot), rain(slot), mask=mask, source_id=f"f{slot}")


def made_at(slot: int, stream: str = "", **changes: object) -> Nowcast:
    """A nowcast issued at `slot`; its frames are random, its context is what was observed."""
    nowcast = Nowcast(
        frames=np.stack([rain(10_000 + 100 * slot + k) for k in range(K)]),
        context=np.stack([rain(slot - T + 1 + t) for t in range(T)]),
        units=RAIN.units,
        quantity=RAIN.quantity,
        low=RAIN.low,
        high=RAIN.high,
        issue_time=slot_time(slot),
        cadence_s=CADENCE_S,
        stream=stream,
    )
    return dataclasses.replace(nowcast, **changes)  # type: ignore[arg-type]


def expected(nowcasts: list[Nowcast], masks: dict[int, np.ndarray]) -> tuple[Accumulator, ...]:
    """What `evaluate` says of whole nowcasts and of persistence, one lead time at a time."""
    ours, theirs = (Accumulator(K, RAIN, LIMITS, scales=()) for _ in range(2))
    for nowcast in nowcasts:
        assert nowcast.issue_time is not None
        newest = round((nowcast.issue_time - slot_time(0)).total_seconds() / CADENCE_S)
        seen = np.stack([rain(newest + k) for k in range(1, K + 1)])[None]  # (1, K, C, H, W)
        for k in range(K):
            mask = masks.get(newest + 1 + k)
            if mask is not None:
                seen[0, k][:, ~mask] = np.nan
        valid = None if nowcast.observed is None else nowcast.observed[None]
        ours.update(nowcast.frames[None], seen, valid)
        repeated = np.ascontiguousarray(persistence(nowcast.context[None], K))
        theirs.update(repeated, seen, valid)
    return ours, theirs


@pytest.mark.parametrize("masked", [False, True])
def test_equal_to_evaluate_on_the_same_pairs(masked: bool) -> None:
    random = np.random.default_rng(7)
    masks = {n: random.random(SHAPE[1:]) < 0.7 for n in range(0, 30, 2)} if masked else {}
    skill = LiveSkill(RAIN)
    made = []
    for slot in range(14):
        skill.frame(truth(slot, masks.get(slot)), "used", "")
        if slot < 14 - K:
            made.append(made_at(slot, observed=masks.get(slot)))
            skill.nowcast(made[-1])
    now = skill.now()
    assert now is not None
    for way, accumulator in zip(("nowcast", "persistence"), expected(made, masks), strict=True):
        wanted = accumulator.result()
        for scores in (now.total, now.rolling):
            assert scores.frames.tolist() == [len(made)] * K
            assert set(scores.per_lead[way]) == {"mse", "mae", "psnr", "csi_0.1", "csi_1", "csi_5"}
            for name, values in scores.per_lead[way].items():
                np.testing.assert_allclose(values, wanted.per_lead[name], rtol=1e-9, err_msg=name)
                np.testing.assert_allclose(
                    scores.overall[way][name], wanted.overall[name], rtol=1e-9
                )


def test_the_window_rolls_and_memory_does_not_grow() -> None:
    skill = LiveSkill(RAIN, window=5)
    made = []
    for slot in range(30):
        skill.frame(truth(slot), "used", "")
        made.append(made_at(slot))
        skill.nowcast(made[-1])
    now = skill.now()
    assert now is not None
    assert now.rolling.frames.tolist() == [5] * K
    assert now.total.frames.tolist() == [29, 28, 27, 26]
    assert len(skill._streams[""].waiting) == K
    for k in range(K):  # the newest five of each lead time are other nowcasts
        ours, _ = expected(made[30 - 6 - k : 30 - 1 - k], {})
        wanted = ours.result().per_lead["mse"][k]
        np.testing.assert_allclose(now.rolling.per_lead["nowcast"]["mse"][k], wanted, rtol=1e-9)


def test_frames_out_of_order_and_jittered_find_their_nowcasts() -> None:
    skill = LiveSkill(RAIN)
    for slot in range(3):
        skill.frame(truth(slot), "used", "")
    skill.nowcast(made_at(2))
    for slot in (5, 3, 6, 4):
        frame = dataclasses.replace(truth(slot), valid_time=slot_time(slot + 0.2))
        skill.frame(frame, "used", "")
    skill.frame(truth(4), "duplicate", "")
    skill.frame(truth(3), "used", "")  # a second one of the slot is not scored again
    now = skill.now()
    assert now is not None
    assert now.total.frames.tolist() == [1] * K
    wanted = expected([made_at(2)], {})[0].result().per_lead["mae"]
    np.testing.assert_allclose(now.total.per_lead["nowcast"]["mae"], wanted, rtol=1e-9)


def test_frames_that_never_entered_a_window_are_no_truth() -> None:
    skill = LiveSkill(RAIN)
    skill.nowcast(made_at(2))
    for verdict in ("late", "duplicate", "dropped", "bad", "pending"):
        skill.frame(truth(3), verdict, "")
    now = skill.now()
    assert now is not None
    assert now.total.frames.tolist() == [0] * K
    assert np.isnan(now.total.per_lead["nowcast"]["mse"]).all()


def test_stand_ins_are_counted_apart_and_persistence_repeats_what_was_observed() -> None:
    skill = LiveSkill(RAIN)
    skill.nowcast(made_at(2, context_fill=("", "", "bridged")))
    skill.nowcast(made_at(3, context_fill=("", "held", "")))
    skill.nowcast(made_at(4))
    for slot in (3, 4, 5):
        skill.frame(truth(slot), "used", "")
    now = skill.now()
    assert now is not None
    assert now.flagged.frames.tolist() == [2, 2, 1, 0]
    assert now.total.frames.tolist() == [1, 0, 0, 0]
    model = RAIN.model_from_physical
    repeated = np.square(model(rain(5)).astype(float) - model(rain(1))).sum()  # not frame 2
    np.testing.assert_allclose(now.flagged.per_lead["persistence"]["mse"][2], repeated, rtol=1e-6)


def test_streams_are_kept_apart() -> None:
    skill, heard = LiveSkill(RAIN), list[Verified]()
    skill._listen = heard.append
    for name in ("north", "south"):
        skill.nowcast(made_at(2, name))
    skill.frame(truth(3), "used", "south")
    north, south = skill.now("north"), skill.now("south")
    assert north is not None
    assert south is not None
    assert (north.total.frames[0], south.total.frames[0]) == (0, 1)
    assert skill.now("west") is None
    assert [(v.stream, [p.lead for p in v.pairs]) for v in heard] == [("south", [1])]


def test_a_nowcast_made_anew_takes_the_place_of_the_older_one() -> None:
    skill = LiveSkill(RAIN)
    skill.nowcast(made_at(2))
    skill.frame(truth(3), "used", "")
    skill.nowcast(made_at(2, frames=np.zeros((K, *SHAPE), np.float32)))
    skill.frame(truth(4), "used", "")
    now = skill.now()
    assert now is not None
    assert now.total.frames.tolist() == [1, 1, 0, 0]
    zeros = np.square(RAIN.model_from_physical(rain(4)).astype(float)).sum()
    np.testing.assert_allclose(now.total.per_lead["nowcast"]["mse"][1], zeros, rtol=1e-6)


def test_large_nowcasts_are_thinned_out_and_counted() -> None:
    one = made_at(0)
    skill = LiveSkill(RAIN, budget_bytes=2 * (one.frames.nbytes + one.context.nbytes))
    for slot in range(40):
        skill.frame(truth(slot), "used", "")
        skill.nowcast(made_at(slot))
        assert len(skill._streams[""].waiting) <= 2
    now = skill.now()
    assert now is not None
    assert now.unscored > 10
    assert now.total.frames.min() > 10


def test_the_alarm_is_told_once_and_cleared() -> None:
    lines: list[str] = []
    skill = LiveSkill(RAIN, alarm=3, log=lines.append)
    worst = np.full((K, *SHAPE), 20.0, np.float32)
    for slot in range(12):
        skill.frame(truth(slot), "used", "")
        skill.nowcast(made_at(slot, frames=worst))
    standing = skill.alarms[""]
    assert (standing.standing, standing.since, standing.raised) == (True, slot_time(3), 1)
    assert len(lines) == 1
    assert "alarm: 3 frames in a row" in lines[0]
    for slot in range(12, 12 + 2 * K + 3):
        skill.frame(truth(slot), "used", "")
        perfect = np.stack([rain(slot + k) for k in range(1, K + 1)])
        skill.nowcast(made_at(slot, frames=perfect))
    assert not skill.alarms[""].standing
    assert skill.alarms[""].raised == 1
    assert len(lines) == 2
    assert "alarm over" in lines[1]


def test_equal_errors_and_stand_ins_raise_no_alarm() -> None:
    skill = LiveSkill(RAIN, alarm=1)
    worst = np.full((K, *SHAPE), 20.0, np.float32)
    for slot in range(3, 9):
        skill.frame(truth(slot), "used", "")
        skill.nowcast(made_at(slot, frames=worst, context_fill=("", "bridged", "")))
    dry = np.zeros((K, *SHAPE), np.float32)
    for slot in range(30, 36):
        frame = Frame(slot_time(slot), np.zeros(SHAPE, np.float32))
        skill.frame(frame, "used", "")
        skill.nowcast(made_at(slot, frames=dry, context=dry[:T]))
    assert skill.alarms[""].raised == 0


def test_the_alarm_does_not_flutter() -> None:
    alarm, turns = Alarm(2), []
    for n, worse in enumerate([1, 0, 1, 1, 0, 1, 0, 0, 1, 1]):
        turns.append(alarm.frame(bool(worse), slot_time(n)))
    assert turns == ["", "", "", "raised", "", "", "", "cleared", "", "raised"]
    assert alarm.now.raised == 2
    assert alarm.now.since == slot_time(9)


def test_thresholds_of_reflectivity_are_those_of_rain() -> None:
    assert default_thresholds("mm h-1") == LIMITS
    assert default_thresholds("dBZ") == (7.0, 23.0, 34.2)
    assert default_thresholds("1") == ()


class Slow:
    """A watcher that waits until it may go on."""

    def __init__(self) -> None:
        self.go, self.seen = threading.Event(), list[str]()

    def frame(self, frame: Frame, verdict: str, stream: str) -> None:
        self.go.wait(30)
        self.seen.append(frame.source_id)

    def nowcast(self, nowcast: Nowcast) -> None:
        raise RuntimeError("a bug")

    def problem(self, line: str) -> None:
        self.seen.append(line)


def test_those_who_watch_aside_hold_nothing_up(capsys: pytest.CaptureFixture[str]) -> None:
    slow = Slow()
    background = Background([slow])
    background.start()
    for n in range(1000):
        background.frame(truth(n % 9), "used", "")
    assert 700 < background.missed < 1000
    slow.go.set()
    assert background.drain()
    assert len(slow.seen) == 1000 - background.missed
    background.nowcast(made_at(2))
    background.nowcast(made_at(3))
    background.problem("last")
    background.close()
    assert slow.seen[-1] == "last"  # a fault of a watcher ends nothing
    assert capsys.readouterr().err.count("RuntimeError: a bug") == 1


def test_a_replay_waits_for_those_who_watch() -> None:
    slow = Slow()
    background = Background([slow], waits=True)
    background.start()
    threading.Timer(0.05, slow.go.set).start()
    for n in range(1000):
        background.frame(truth(n % 9), "used", "")
    background.close()
    assert (len(slow.seen), background.missed) == (1000, 0)


def test_an_end_in_a_hurry_leaves_the_rest_out() -> None:
    slow = Slow()
    background = Background([slow])
    background.start()
    for n in range(20):
        background.frame(truth(n), "used", "")
    threading.Timer(0.2, slow.go.set).start()
    background.close(patience_s=0.01)
    assert len(slow.seen) == 1
    assert background.missed == 19


def test_a_gap_longer_than_the_horizon_leaves_nothing_waiting() -> None:
    skill = LiveSkill(RAIN)
    skill.nowcast(made_at(2))
    later = dataclasses.replace(truth(5), valid_time=slot_time(5) + timedelta(days=1))
    skill.frame(later, "used", "")
    skill.nowcast(made_at(300))
    skill.frame(truth(400), "used", "")
    skill.nowcast(made_at(401))
    skill.frame(truth(402), "used", "")
    assert len(skill._streams[""].waiting) == 1


def test_a_clock_that_is_set_back_leaves_nothing_waiting() -> None:
    one = made_at(0)
    skill = LiveSkill(RAIN, budget_bytes=2 * (one.frames.nbytes + one.context.nbytes))
    for slot in (1000, 1001, 0):
        skill.nowcast(made_at(slot))
    assert [waiting.issue_time for waiting in skill._streams[""].waiting] == [slot_time(0)]
    now = skill.now()
    assert now is not None
    assert now.unscored == 0


def test_flow_is_scored_beside_where_it_is_asked_for() -> None:
    pytest.importorskip("cv2", reason="OpenCV is in the extra evaluate")
    skill = LiveSkill(RAIN, flow=True)
    made = []
    scores = Accumulator(K, RAIN, LIMITS, scales=())
    for slot in range(9):
        skill.frame(truth(slot), "used", "")
        if slot < 9 - K:
            made.append(made_at(slot))
            skill.nowcast(made[-1])
            seen = np.stack([rain(slot + k) for k in range(1, K + 1)])[None]
            scores.update(flow(made[-1].context[None], K, RAIN.units), seen)
    now = skill.now()
    assert now is not None
    assert list(now.total.overall) == ["nowcast", "persistence", "flow"]
    wanted = scores.result()
    for name, values in now.total.per_lead["flow"].items():
        np.testing.assert_allclose(values, wanted.per_lead[name], rtol=1e-9, err_msg=name)
    without = LiveSkill(RAIN)
    without.nowcast(made[0])
    (plain,) = without.all().values()
    assert list(plain.total.overall) == ["nowcast", "persistence"]
    text = skill_line(now)
    ours, theirs = now.total.overall["nowcast"]["mse"], now.total.overall["flow"]["mse"]
    assert f"flow {theirs:.4g} ({abs(1 - ours / theirs):.0%} " in text
    assert text.endswith("summed over a frame's pixels")
