"""A session whose batches fail in one graph."""

from __future__ import annotations

from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault
from stpl_runtime.engine import Session, StateHandle
from tests.runtime.nowcasting.test_nowcaster import CountingSession


class FailingInBatches(CountingSession):
    """Single calls are those of the session."""

    def __init__(self, session: Session, graph: str) -> None:
        super().__init__(session)
        self._graph = graph

    def _fail(self, frame: Array, here: str) -> None:
        if here == self._graph and len(frame) > 1:
            raise EnvironmentFault("out of memory", expected="more of it")

    def step(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        self._fail(frame, "step")
        return super().step(frame, state)

    def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        self._fail(frame, "forecast")
        return super().forecast(frame, state)
