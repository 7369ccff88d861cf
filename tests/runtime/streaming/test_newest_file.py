"""After a restart the page shows the newest nowcast and the skill, and says how old they are."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stpl_core.bundle import Bundle
from stpl_core.frames import Frame
from stpl_runtime.engine import Session
from stpl_runtime.links.health import HealthNow
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.page.verdict import judge, old_after_s, old_data, span_text
from stpl_runtime.streaming.newest_file import NewestFile
from stpl_runtime.timing import utc_now
from stpl_runtime.watching.skill import LiveSkill
from tests.runtime.conftest import CADENCE_S, make_frame
from tests.runtime.streaming.test_state_file import assert_same, rich_frame


class Stream:
    """A nowcaster, its skill and their file, as `serve` puts them together."""

    def __init__(
        self, bundle: Bundle, session: Session, path: Path, stream: str = "", **skill: object
    ) -> None:
        self.nowcaster = Nowcaster(bundle, session, cadence_s=CADENCE_S, stream=stream)
        self.skill = LiveSkill(bundle.manifest.codec, **{"thresholds": (0.5,), **skill})  # type: ignore[arg-type]
        self.lines: list[str] = []
        self.file = NewestFile(path, self.nowcaster, self.skill, self.lines.append)
        self.stream = stream

    def take(self, frame: Frame) -> None:
        put = self.nowcaster.put(frame)
        made = self.nowcaster.issue()
        for watcher in (self.skill, self.file):
            watcher.frame(frame, put.verdict, self.stream)
        if made is not None:
            for watcher in (self.skill, self.file):
                watcher.nowcast(made)
            self.newest = made


def test_everything_comes_back(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    path = tmp_path / "radar.state"
    before = Stream(bundle, session, path)
    for n in range(9):
        before.take(rich_frame(n))
    before.file.close()
    after = Stream(bundle, session, path)
    kept = after.file.restore()
    assert kept is not None
    assert_same(kept.nowcast, before.newest)
    assert before.newest.context_observed is not None
    np.testing.assert_array_equal(kept.nowcast.context_observed, before.newest.context_observed)
    assert abs((kept.arrived_at - utc_now()).total_seconds()) < 60
    one, other = before.skill.now(), after.skill.now()
    assert one is not None
    assert other is not None
    assert json.dumps(one.as_json()) == json.dumps(other.as_json())
    assert int(one.total.frames.sum()) > 0
    # The newest nowcast is scored when its truth comes, and the rolling window goes on.
    before.take(rich_frame(9))
    count = int(one.total.frames.sum())
    after.skill.frame(rich_frame(9), "used", "")
    now = after.skill.now()
    assert now is not None
    assert int(now.total.frames.sum()) == count + 1


def test_what_does_not_fit_is_left(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    path = tmp_path / "radar.state"
    before = Stream(bundle, session, path)
    for n in range(6):
        before.take(make_frame(n))
    before.file.close()
    assert Stream(bundle, session, path, "north").file.restore() is None
    other = Stream(bundle, session, path, thresholds=(0.7,))
    assert other.file.restore() is not None  # the nowcast fits; scores of other thresholds do not
    now = other.skill.now()
    assert now is not None
    assert int(now.total.frames.sum()) == 0
    window = Stream(bundle, session, path, window=2)
    assert window.file.restore() is not None
    assert Stream(bundle, session, tmp_path / "none").file.restore() is None


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.booleans())
def test_damage_costs_what_it_held_and_nothing_else(
    bundle: Bundle, session: Session, tmp_path: Path, at: int, value: int, cut: bool
) -> None:
    path = tmp_path / "radar.state"
    before = Stream(bundle, session, path)
    for n in range(4):
        before.take(make_frame(n))
    before.file.close()
    content = bytearray(before.file.path.read_bytes())
    at %= len(content)
    if cut:
        content = content[:at]
    else:
        content[at] = value
    before.file.path.write_bytes(content)
    kept = Stream(bundle, session, path).file.restore()
    if kept is not None:
        assert_same(kept.nowcast, before.newest)


def test_a_place_that_cannot_be_written_is_reported_once(
    bundle: Bundle, session: Session, tmp_path: Path
) -> None:
    stream = Stream(bundle, session, tmp_path / "no" / "such" / "radar.state")
    (tmp_path / "no").write_text("a file")
    for n in range(8):
        stream.take(make_frame(n))
        stream.file.close()
    assert len(stream.lines) == 1
    assert "cannot be written" in stream.lines[0]


def test_how_old_data_may_be() -> None:
    now = utc_now()
    assert old_after_s(None, 300.0) is None
    assert old_after_s(60.0, 300.0) == 60.0
    assert old_after_s(0.0, 300.0) == 1800.0
    assert old_after_s(0.0, 1.0) == 900.0
    assert old_after_s(0.0, None) is None
    old = now - timedelta(days=16 * 365.25)
    assert "16 years ago" in old_data(old, now, 1800.0)
    assert not old_data(old, now, None)
    assert not old_data(now - timedelta(minutes=29), now, 1800.0)
    assert not old_data(now.replace(year=1970), now, 1800.0)  # counted, not observed
    assert [span_text(s) for s in (5, 90, 5400, 7200, 200000)] == [
        *("5 s", "90 s", "90 min", "2 h", "2 days")
    ]


@pytest.mark.parametrize(
    ("old", "is_restored", "word", "reason"),
    [
        ("", False, "ok", ""),
        ("the newest frame was observed 16 years ago", False, "stale", "16 years"),
        ("", True, "degraded", "before the restart"),
    ],
)
def test_the_verdict(old: str, is_restored: bool, word: str, reason: str) -> None:
    found = judge(
        HealthNow("up", utc_now()),
        arrival_age_s=1.0,
        stale_s=900.0,
        old=old,
        is_restored=is_restored,
        alarm=False,
        filled_frames=0,
        troubles=(),
    )
    assert found.word == word
    assert reason in " ".join(found.reasons)
