"""How long a batch waits, and for whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stpl_runtime.links.health import Health
from stpl_runtime.streaming.continuous.gathering import Gathering
from stpl_runtime.streaming.stream import Stream


@dataclass
class Fake:
    """What is asked of a stream."""

    name: str
    arrived: float | None = None
    """When the frame came that made it due; None: it is not due."""
    to_next: int = 1
    over: bool = False
    health: Health = field(default_factory=Health)

    @property
    def source(self) -> Any:
        return SimpleNamespace(health=self.health)

    @property
    def nowcaster(self) -> Any:
        entry = SimpleNamespace(arrived=self.arrived)
        window = SimpleNamespace(newest=0, entry=lambda _: entry)
        ready = self.arrived is not None
        return SimpleNamespace(ready=ready, frames_to_next=self.to_next, window=window)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def left(gathering: Gathering, *streams: Fake) -> float | None:
    return gathering.left_s(cast("list[Stream]", streams))


def test_it_waits_for_the_others_no_longer_than_the_bound() -> None:
    clock = Clock()
    gathering = Gathering(5.0, clock)
    a, b = Fake("a"), Fake("b")
    assert left(gathering, a, b) is None
    a.arrived = 98.0  # it waited two seconds behind something else
    assert left(gathering, a, b) == pytest.approx(3.0)
    clock.now = 102.0
    assert left(gathering, a, b) == pytest.approx(1.0)
    clock.now = 103.0
    assert left(gathering, a, b) == 0
    b.arrived = 103.0
    assert left(gathering, a, b) == 0  # all are due


def test_the_first_of_those_that_wait_ends_it() -> None:
    gathering = Gathering(5.0, Clock())
    a, b, c = Fake("a", arrived=99.0), Fake("b", arrived=97.0), Fake("c")
    assert left(gathering, a, b, c) == pytest.approx(2.0)


def test_a_newer_frame_of_a_stream_that_waits_does_not_prolong_it() -> None:
    clock = Clock()
    gathering = Gathering(5.0, clock)
    a, b = Fake("a", arrived=100.0), Fake("b")
    assert left(gathering, a, b) == pytest.approx(5.0)
    a.arrived = clock.now = 104.0
    assert left(gathering, a, b) == pytest.approx(1.0)
    gathering.sent()
    a.arrived = clock.now = 106.0  # its next one, which came while the batch ran
    assert left(gathering, a, b) == pytest.approx(5.0)


@pytest.mark.parametrize("why", ["over", "down", "window"])
def test_nobody_waits_for_a_stream_that_cannot_come(why: str) -> None:
    gathering = Gathering(5.0, Clock())
    a, b = Fake("a", arrived=100.0), Fake("b")
    assert left(gathering, a, b) == pytest.approx(5.0)
    if why == "over":
        b.over = True
    elif why == "down":
        b.health.up()
        b.health.down("gone")
    else:
        b.to_next = 2
    assert left(gathering, a, b) == 0


def test_a_stream_that_is_over_and_due_is_sent_with_the_others() -> None:
    gathering = Gathering(5.0, Clock())
    a = Fake("a", arrived=100.0, over=True)
    assert left(gathering, a, Fake("b")) == pytest.approx(5.0)
    assert left(gathering, a) == 0
