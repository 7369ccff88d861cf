"""One client may hold so many connections, and no more: the rest find room.

Connections that wait for nothing are the first to go, the oldest of them first. So whoever opens
connections without end closes their own, and `/healthz` is answered.
"""

from __future__ import annotations

import itertools
from typing import Any


def protocol_for(most_of_one: int) -> type[Any]:
    """Uvicorn's protocol, with at most so many connections of one address."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    numbers = itertools.count()

    class Limited(H11Protocol):
        """A connection that knows its age."""

        number = -1

        def connection_made(self, transport: Any) -> None:
            """Make room among the connections of the same address."""
            super().connection_made(transport)
            self.number = next(numbers)
            mine = [one for one in self.connections if _address(one) == _address(self)]
            if len(mine) > most_of_one:
                oldest = min(mine, key=lambda one: (_busy(one), getattr(one, "number", -1)))
                self.connections.discard(oldest)  # it is lost a moment later
                oldest.transport.abort()

    return Limited


def _address(connection: Any) -> str:
    peer = connection.transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""


def _busy(connection: Any) -> bool:
    """Whether it is being answered."""
    cycle = connection.cycle
    return cycle is not None and not cycle.response_complete
