"""Reads a source in a thread and lets a test wait for what arrives, or for its health."""

from __future__ import annotations

import threading
import time

from stpl_core.frames import Frame
from stpl_runtime.links.health import HealthNow
from stpl_runtime.source import Arrival, BadFrame, Source

WAIT_S = 30.0


class SourceReader:
    """Use it as a context manager."""

    def __init__(self, source: Source) -> None:
        self.arrivals: list[Arrival] = []
        self.error: BaseException | None = None
        self.ended = False
        self.source = source
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> SourceReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=15)
        assert not self._thread.is_alive(), "the source did not stop"

    def _read(self) -> None:
        try:
            for arrival in self.source.arrivals(self._stop):
                with self._changed:
                    self.arrivals.append(arrival)
                    self._changed.notify_all()
        except BaseException as error:
            self.error = error
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    @property
    def items(self) -> list[Frame | BadFrame]:
        return [arrival.item for arrival in self.arrivals]

    @property
    def frames(self) -> list[Frame]:
        bad = [item for item in self.items if isinstance(item, BadFrame)]
        assert not bad
        return [item for item in self.items if isinstance(item, Frame)]

    def wait_for(self, count: int) -> list[Frame | BadFrame]:
        """The first `count` items, once they are there."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: len(self.arrivals) >= count or self.ended, timeout=WAIT_S
            )
        if self.error is not None:
            raise self.error
        assert done, f"{len(self.arrivals)} of {count} arrived; {self.source.health.now()}"
        assert len(self.arrivals) >= count, "it ended"
        return self.items[:count]

    def wait_for_end(self) -> list[Frame | BadFrame]:
        with self._changed:
            assert self._changed.wait_for(lambda: self.ended, timeout=WAIT_S)
        if self.error is not None:
            raise self.error
        return self.items

    def wait_for_state(self, state: str) -> HealthNow:
        """Health has no event of its own: looked at often."""
        deadline = time.monotonic() + WAIT_S
        while (now := self.source.health.now()).state != state:
            assert time.monotonic() < deadline, now
            assert not self.ended, (now, self.error)
            time.sleep(0.01)
        return now
