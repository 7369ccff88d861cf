"""A hostile live source with a script, and what must become of each of its frames."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from stpl_core.errors import SinkError
from stpl_core.frames import Frame
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import Backoff, reconnecting
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.source import Arrival, BadFrame
from tests.runtime.conftest import CADENCE_S, make_frame, slot_time

CONTEXT = 4
LATENESS = CONTEXT - 1
FIRST = 10


class Gone(OSError):
    """The source was killed."""


@dataclass
class Chaos:
    """10% loss, three outages with the source killed, disorder, duplicates, damage."""

    slots: int
    seed: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    """What must become of the frames that were yielded so far."""
    received: dict[int, list[int]] = field(default_factory=dict)
    """Slot -> the variants that came and were no worse than a duplicate; recent slots only."""
    kills: int = 0
    gaps: int = 0
    """Jumps of more than T slots."""

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._outages = {self.slots // 4: 2, self.slots // 2: 7, 3 * self.slots // 4: 300}
        self._newest: int | None = None

    def items(self) -> Iterator[Frame | BadFrame | None]:
        """The script; None: the source is killed here and comes back."""
        slot = FIRST
        while slot < FIRST + self.slots:
            if slot - FIRST in self._outages:
                slot += self._outages.pop(slot - FIRST)
                self.kills += 1
                yield None
            kind = self._random.choice(
                ["plain", "lost", "swap", "repeat", "correct", "old", "late", "broken", "nan"],
                p=[0.63, 0.10, 0.06, 0.05, 0.05, 0.03, 0.04, 0.02, 0.02],
            )
            if kind == "swap":
                yield self._frame(slot + 1)
            if kind == "broken":
                yield self._bad(BadFrame(f"f{slot}.png", "truncated"))
            elif kind == "nan":
                frame = make_frame(slot)
                yield self._bad(replace(frame, data=np.full_like(frame.data, np.nan)))
            elif kind != "lost":
                yield self._frame(slot)
            if kind == "repeat":
                yield self._frame(slot)
            elif kind == "correct":
                yield self._frame(slot, variant=1)
            elif kind in ("old", "late"):
                back = self._random.integers(1, 4) if kind == "late" else 4 + slot % 5
                yield self._frame(slot - int(back))
            slot += 2 if kind == "swap" else 1

    def _bad(self, item: Frame | BadFrame) -> Frame | BadFrame:
        self.fates["bad"] += 1
        return item

    def _frame(self, slot: int, variant: int = 0) -> Frame:
        """An independent account of design.md's rules, for a stated cadence."""
        newest = self._newest
        if newest is not None and slot < newest - LATENESS:
            self.fates["late"] += 1
        else:
            self.fates["duplicate" if slot in self.received else "used"] += 1
            self.received.setdefault(slot, []).append(variant)
            self.gaps += newest is not None and slot > newest + CONTEXT
            self._newest = slot if newest is None else max(slot, newest)
            if len(self.received) > 4000:
                self.received.pop(next(iter(self.received)))
        return make_frame(slot, variant=variant)


class ChaosSource:
    """Keeps `stpl_runtime.source.Source` on the real code for lost connections."""

    name, waits = "chaos", True

    def __init__(self, chaos: Chaos) -> None:
        self.chaos, self.health = chaos, Health()
        self._items = chaos.items()
        self.over = threading.Event()

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        over = self.over

        class Either(threading.Event):
            def is_set(self) -> bool:
                return stop.is_set() or over.is_set()

        backoff = Backoff(0.001, 0.002)
        yield from reconnecting(self._connect, Either(), self.health, (Gone,), backoff=backoff)

    def _connect(self) -> Iterator[Arrival]:
        for item in self._items:
            if item is None:
                raise Gone("connection refused")
            yield Arrival.now(item)
        self.over.set()


class CheckedSink:
    """Checks every nowcast against the frames that came; its disk is full for a while."""

    name = "npz:checked"

    def __init__(self, chaos: Chaos, full: range) -> None:
        self.chaos, self._full = chaos, full
        self.calls = self.failed = self.flagged = 0
        self.sampled: list[Nowcast] = []
        self.wrong: list[str] = []

    def write(self, nowcast: Nowcast) -> None:
        self.calls += 1
        if self.calls in self._full:
            self.failed += 1
            raise SinkError("cannot write x: No space left on device (0 bytes free)")
        how = nowcast.context_fill or ("",) * len(nowcast.context)
        self.flagged += any(how)
        for data, time, stands_in in zip(nowcast.context, nowcast.context_times, how, strict=True):
            slot = round((time - slot_time(0)).total_seconds() / CADENCE_S)
            came = self.chaos.received.get(slot, [])
            if stands_in:
                continue
            if not any(np.array_equal(data, make_frame(slot, variant=v).data) for v in came):
                self.wrong.append(f"{nowcast.name}: slot {slot} was fabricated")
        if self.calls % 97 == 0 and len(self.sampled) < 40:
            self.sampled.append(nowcast)

    def close(self) -> None:
        """Nothing is open."""
