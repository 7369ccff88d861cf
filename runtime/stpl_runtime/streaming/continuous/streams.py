"""The loop of several streams that wait for one another, within a bound."""

from __future__ import annotations

from collections.abc import Sequence

from stpl_core.bundle import Bundle
from stpl_core.errors import UsageError
from stpl_core.options import StreamOptions
from stpl_runtime.engine import KeepsStates, Session, precision_of
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.streaming.batching import exactness
from stpl_runtime.streaming.continuous.batcher import ContinuousBatcher, Limits, limits_of
from stpl_runtime.streaming.continuous.deferred import DeferredSession
from stpl_runtime.streaming.continuous.gathering import Gathering
from stpl_runtime.streaming.service_manager import ServiceManager
from stpl_runtime.streaming.stream import Stream
from stpl_runtime.streaming.streams import Streams

_LOOK_S = 0.2
"""A wait is interrupted so often, for the loop's other duties."""


class BatchedStreams(Streams):
    """Several streams, whose nowcasts are made in one call where they are due at the same time."""

    def __init__(
        self,
        streams: Sequence[Stream],
        session: DeferredSession,
        wait_s: float,
        limits: Limits | None,
        manager: ServiceManager | None = None,
    ) -> None:
        """Put them together.

        Args:
            streams: their nowcasters have `session`, and one horizon.
            session: shared by all.
            wait_s: no nowcast is held longer for those of other streams.
            limits: see `ContinuousBatcher`.
            manager: see `Streams`.
        """
        super().__init__(streams, manager)
        self._session, self._limits = session, limits
        self._gathering = Gathering(wait_s)

    def _new_batcher(self, first: Nowcaster) -> ContinuousBatcher:
        return ContinuousBatcher(
            self._session,
            first.manifest,
            first.horizon,
            chances=first.chances,
            limits=self._limits,
        )

    def _warm_up(self) -> None:
        super()._warm_up()
        assert self._batcher is not None
        sizes = ", ".join(map(str, reversed(self._batcher.sizes)))
        if sizes:
            wait_ms = 1e3 * self._gathering.wait_s
            line = (
                f"nowcasts of {sizes} streams are made in one call, with "
                f"{exactness(self._batcher.gap)}; none is held longer than {wait_ms:g} ms for it"
            )
        else:
            self._gathering.wait_s = 0.0
            line = "no batch is faster here than single nowcasts, and exact: none is held for one"
        self.streams[0].status.line(line, "batches", "info")

    def _take_in(self) -> list[bool]:
        """A slot that is to have its nowcast is not overtaken while that one waits."""
        return [
            (stream.policy == "latest" or not stream.nowcaster.ready) and stream.take_in()
            for stream in self.streams
        ]

    def _issue(self) -> bool:
        if self._gathering.left_s(self.streams) != 0:
            return False
        self._gathering.sent()
        return super()._issue()

    def _idle_step(self) -> bool:
        """Wait for those that may join; else one call of work ahead, for as many as it holds."""
        left_s = self._gathering.left_s(self.streams)
        if left_s is not None:
            self._wake.wait(min(left_s, _LOOK_S))
            return True
        assert self._batcher is not None, "_warm_up comes first"
        if self._session.read_some(self._batcher.sizes):
            return True
        ahead = [stream.nowcaster.idle_step() for stream in self.streams]  # a frame of each
        return any(ahead)


def session_for(options: StreamOptions, session: Session, streams: int) -> Session:
    """The session of the streams' nowcasters.

    Args:
        options: what is asked for.
        session: of the bundle, on the domain of the frames.
        streams: how many there are.

    Raises:
        UsageError: batches are asked for, and the states are not on this machine.
    """
    if options.batch_wait is None or streams == 1:
        return session
    if isinstance(session, KeepsStates):
        raise UsageError(
            f"--batch-wait {options.batch_wait:g} with --engine {options.backend.engine}",
            expected="an engine on this machine; a server batches what its clients send",
            fix="leave --batch-wait out",
        )
    return DeferredSession(session)


def put_together(
    options: StreamOptions, streams: Sequence[Stream], session: Session, exported: Bundle
) -> Streams:
    """One stream or several in one loop.

    Args:
        options: what is asked for.
        streams: their nowcasters have `session`.
        session: from `session_for`.
        exported: the bundle as it was exported, for what it allows.
    """
    if options.batch_wait is None or not isinstance(session, DeferredSession):
        return Streams(streams)
    carried = options.context == "carry"
    limits = None if carried else limits_of(exported, precision_of(session, exported.manifest))
    return BatchedStreams(streams, session, options.batch_wait / 1e3, limits)
